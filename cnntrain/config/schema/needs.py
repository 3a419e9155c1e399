"""When keys act: what a word must find in the rest of a config, lest it do nothing, or other than it says."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cnntrain.config.schema.data import DATASETS, Sampling
from cnntrain.config.schema.finetune import Mode
from cnntrain.config.schema.settings import Settings
from cnntrain.registry import is_dotted


@dataclass(frozen=True)
class Rule:
    """When some keys act.

    Attributes:
        keys: dotted names, with all that is below them, and choices (`schedule=`); the first that was typed is told.
        acts: whether they do in a run of these settings.
        text: why not, and what to do; in braces {given}, the settings {s}, {drop} and {meant}.
        idle: where they do not act, a run is the same without them.
    """

    keys: str
    acts: Callable[[Settings], bool]
    text: str
    idle: bool = True


def _from_weights(settings: Settings) -> bool:
    return settings.model.pretrained or settings.model.weights is not None


def _tunes(settings: Settings) -> bool:
    return settings.finetune.mode is not Mode.none


def _argument(settings: Settings, name: str, value: Any = None) -> bool:
    """Whether `model=cnn` has an argument, here or in a block; of any value that is not off, or of a certain one."""
    args = settings.model.args
    blocks = args.get("blocks")
    places = [args, *(block for block in (blocks if isinstance(blocks, list) else []) if isinstance(block, dict))]
    values = [place.get(name) for place in places]
    return settings.model.name != "cnn" or (value in values if value else any(values))


_FILES = "is for image files, and data={s.data.name} has none (given {given}); leave it out"
_WEIGHTS = (
    "is for weights to start from, and none are loaded (given {given}); set model.pretrained=true or model.weights=FILE"
)
_MODE = "is for pretrained weights, and finetune.mode is none (given {given}); choose one, such as finetune=C"
_SETS = [name for name, entry in DATASETS.items() if entry.takes_sets]
OF_LOSSES = {"focal": ["gamma"], "bce": ["pos_weight"], "asymmetric": ["gamma_pos", "gamma_neg", "clip"]}


def _of_loss(name: str, key: str) -> Rule:
    """The rule of a number that one loss alone has."""
    text = f"is for loss={name}, and loss.name is {{s.loss.name}} (given {{given}}); leave it out"
    return Rule(f"loss.{key}", lambda s: s.loss.name == name, text)


RULES = (
    # --- data
    Rule(
        "data.root",
        lambda s: not DATASETS.entry(s.data.name).is_embedded,
        "data=digits, the default, comes with cnntrain and reads no folder (given {given}); {meant}",
    ),
    Rule(
        "data.download",
        lambda s: DATASETS.entry(s.data.name).downloads,
        "fetches public data sets by name, and {s.data.name} is none (given {given}); choose one, such as data=cifar10",
    ),
    *(
        Rule(key, lambda s: s.data.has_files or is_dotted(s.data.name), _FILES)
        for key in ("data.crop", "data.crop_mode", "data.workers", "data.on_bad_image")
    ),
    Rule(
        "data.split_file",
        lambda s: s.data.has_files and s.data.is_users,
        "is for image files of your own, and data={s.data.name} has none (given {given}); leave it out",
    ),
    *(
        Rule(
            key,
            lambda s: s.data.is_table,
            "is for a table of files, and data={s.data.name} is none (given {given}); leave it out",
        )
        for key in ("data.columns.split", "data.columns.weight", "data.images")
    ),
    Rule(
        "data.columns.group",
        lambda s: s.data.is_table,
        "is for a table of files, and data={s.data.name} is none (given {given}); write the images, their classes and "
        "groups into one: data=table data.root=labels.csv",
    ),
    Rule(
        "data.columns",
        lambda s: s.data.is_table or s.data.is_hub,
        "is for a table of files, and data={s.data.name} is none (given {given}); leave it out",
    ),
    Rule(
        "data.buffer",
        lambda s: s.data.is_shards,
        "is for shards, data=webdataset, and data={s.data.name} has none (given {given}); leave it out",
    ),
    Rule(
        "data.buffer",
        lambda s: s.data.sampling is Sampling.natural,
        "says nothing beside data.sampling={s.data.sampling.name} (given {given}); leave one of the two out",
    ),
    Rule(
        "data.val",
        lambda s: s.data.folds is None,
        "says nothing beside data.folds={s.data.folds} (given {given}); leave one of the two out",
    ),
    Rule(
        "data.limit",
        lambda s: s.data.per_class is None,
        "says nothing beside data.per_class={s.data.per_class} (given {given}); leave one of the two out",
    ),
    # --- augmentation and loss
    Rule(
        "augment.mix",
        lambda s: s.augment.mixes,
        "is for mixed images, and neither mixup nor cutmix is on (given {given}); add one to augment=[...]",
    ),
    Rule(
        "augment.mix.switch_p",
        lambda s: not s.augment.mixes or None not in (s.augment.mixup, s.augment.cutmix),
        "chooses between mixup and cutmix, and one of them is off (given {given}); name both in augment=[...]",
    ),
    Rule(
        "augment.mix.off_epoch",
        lambda s: s.augment.mix.off_epoch is None or s.augment.mix.off_epoch < s.trainer.epochs,
        "must be below trainer.epochs ({s.trainer.epochs}), or all epochs mix (given {given})",
    ),
    Rule(
        "augment.progressive",
        lambda s: s.trainer.epochs > 1,
        "one epoch is not enough to grow (given {given}); set trainer.epochs=2 or more",
    ),
    *(_of_loss(name, key) for name, keys in OF_LOSSES.items() for key in keys),
    Rule(
        "data.columns.separator",
        lambda s: s.data.multi_label,
        "is for data.multi_label=true (given {given}); set that too",
    ),
    Rule(
        "data.multi_label",
        lambda s: DATASETS.entry(s.data.name).takes_sets,
        f"is for data={' and '.join(_SETS)} (given {{given}}); write the labels of each image into a table",
    ),
    *(
        Rule(
            key,
            lambda s: not is_dotted(s.loss.name),
            "is for a loss of ours, and {s.loss.name} is a function (given {given}); give it loss.args",
        )
        for key in ("loss.label_smoothing", "loss.class_weights")
    ),
    Rule(
        "loss.args",
        lambda s: is_dotted(s.loss.name),
        "is for a function of yours, and loss.name is {s.loss.name} (given {given}); leave it out",
    ),
    Rule(
        "data.args",
        lambda s: is_dotted(s.data.name) or bool((entry := DATASETS.entry(s.data.name)).option or entry.words),
        "is for a function of yours, and data.name is {s.data.name} (given {given}); leave it out",
    ),
    Rule(
        "loss.beta",
        lambda s: s.loss.class_weights == "effective",
        "is for loss.class_weights=effective (given {given}); set that, or leave it out",
    ),
    # --- the rate
    Rule(
        "optimizer.nesterov",
        lambda s: getattr(s.optimizer, "momentum", 0) > 0,
        "is a kind of momentum, and optimizer.momentum is 0 (given {given}); leave it out",
    ),
    Rule(
        "schedule.warmup_start",
        lambda s: s.schedule.warmup > 0,
        "is where a warm-up begins, and schedule.warmup is 0 (given {given}); set that, in epochs",
    ),
    Rule(
        "schedule.warmup",
        lambda s: s.schedule.warmup < s.trainer.epochs,
        "must be below trainer.epochs ({s.trainer.epochs}), or the whole run is one rise (given {given})",
        idle=False,
    ),
    Rule(
        "schedule.milestones schedule.every schedule.patience schedule.factor schedule.threshold schedule=",
        lambda s: s.schedule.first_drop()[1] < s.trainer.epochs,
        "{s.schedule.name} never drops the rate in {s.trainer.epochs} epochs with {drop} (given {given}); lower that",
        idle=False,
    ),
    Rule(
        "schedule.milestones",
        lambda s: max(getattr(s.schedule, "milestones", None) or [0]) < s.trainer.epochs,
        "must be below trainer.epochs ({s.trainer.epochs}), the end of the run (given {given}); leave out what is not",
        idle=False,
    ),
    # --- pretrained networks
    *(Rule(key, _from_weights, _WEIGHTS) for key in ("model.new_head", "model.allow_missing", "model.allow_unused")),
    Rule(
        "finetune.cache_features",
        lambda s: s.finetune.mode is Mode.A,
        "is for finetune=A, and finetune.mode is {s.finetune.mode.name} (given {given}); leave it out",
    ),
    *(Rule(key, _tunes, _MODE) for key in ("finetune.groups", "finetune.norm", "finetune.unit")),
    Rule(
        "finetune.unit",
        lambda s: not isinstance(s.finetune.groups, list),
        "is for groups found by rule, and finetune.groups names them (given {given}); leave one of the two out",
    ),
    Rule(
        "finetune.head_epochs trainer.epochs finetune=",
        lambda s: s.finetune.head_epochs == 0 or s.finetune.head_epochs < s.trainer.epochs,
        "the head alone learns for finetune.head_epochs={s.finetune.head_epochs} of {s.trainer.epochs} epochs "
        "(given {given}); give the rest more of them, or choose finetune=A",
        idle=False,
    ),
    Rule(
        "finetune.unfreeze",
        lambda s: max(s.finetune.unfreeze or [0]) <= s.trainer.epochs,
        "must be up to trainer.epochs ({s.trainer.epochs}), the last of the run (given {given})",
        idle=False,
    ),
    # --- the network
    Rule(
        "model.library",
        lambda s: not is_dotted(s.model.name),
        "is where a name is looked up, and {s.model.name} is a function (given {given}); leave it out",
    ),
    Rule(
        "model.head.activation",
        lambda s: bool(s.model.head.hidden),
        "follows hidden layers, and model.head.hidden is empty (given {given}); set that, such as [256]",
    ),
    Rule(
        "model.args.hidden_activation",
        lambda s: _argument(s, "hidden"),
        "follows hidden layers, and there are none (given {given}); set model.args.hidden, such as [256]",
    ),
    Rule(
        "model.args.drop_block_size",
        lambda s: _argument(s, "drop_block"),
        "is for blocks with drop_block (given {given}); set model.args.drop_block, such as 0.1",
    ),
    Rule(
        "model.args.init_std",
        lambda s: _argument(s, "init", "normal"),
        "is for model.args.init=normal (given {given}); set that, or leave it out",
    ),
    # --- the run
    Rule(
        "trainer.probe",
        lambda s: bool(s.augment.pieces),
        "scores training images unaugmented, and nothing augments them (given {given}); leave it out",
    ),
    Rule(
        "trainer.early_stop",
        lambda s: s.trainer.early_stop is None or s.trainer.early_stop < s.trainer.epochs - 1,
        "can end no run of trainer.epochs={s.trainer.epochs} sooner (given {given}); train longer, or leave it out",
    ),
)
