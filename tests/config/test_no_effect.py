"""What the user typed and what acts on nothing is refused, before anything is loaded; presets and defaults are not."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from cnntrain import cli
from cnntrain.cli import dispatch
from cnntrain.compare import plan
from cnntrain.config import no_effect
from cnntrain.config.compose import compose_line, compose_settings
from cnntrain.config.errors import ConfigErrors
from cnntrain.config.messages import keys_of
from cnntrain.config.plain import to_yaml
from cnntrain.config.run_config import restore_config
from cnntrain.config.schema import needs

HALF = "model.pretrained=true"


def faults(line: str, *, multirun: bool = False, config_dir: Path | None = None) -> list[str]:
    try:
        compose_line(line.split(), multirun=multirun, config_dir=str(config_dir) if config_dir else None)
    except ConfigErrors as errors:
        return errors.faults
    return []


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (
            "data.root=nowhere",
            "data.root: data=digits, the default, comes with cnntrain and reads no folder (given",
        ),
        ("data.download=true", "data.download: fetches public data sets by name, and digits is none (given true)"),
        ("data=imagefolder data.root=. data.download=true", "data.download: fetches"),
        ("data.crop=0.9", "data.crop: is for image files, and data=digits has none (given 0.9)"),
        ("data.crop_mode=squash", "data.crop_mode: is for image files, and data=digits has none (given squash)"),
        ("data=mnist data.workers=2", "data.workers: is for image files, and data=mnist has none (given 2)"),
        ("data={on_bad_image:skip}", "data.on_bad_image: is for image files"),
        ("data.folds=5 data.val=0.3", "data.val: says nothing beside data.folds=5 (given 0.3)"),
        ("data.limit=100 data.per_class=5", "data.limit: says nothing beside data.per_class=5 (given 100); leave one"),
        ("augment.mix.p=0.5", "augment.mix.p: is for mixed images, and neither mixup nor cutmix is on (given 0.5)"),
        ("augment.mix={mode:pair}", "augment.mix.mode: is for mixed images"),
        ("augment=mixup augment.mix.switch_p=0.3", "augment.mix.switch_p: chooses between mixup and cutmix"),
        ("augment=cutmix augment.mix.off_epoch=30", "augment.mix.off_epoch: must be below trainer.epochs (30)"),
        ("augment=[hflip,progressive] trainer.epochs=1", "augment.progressive: one epoch is not enough to grow"),
        ("loss.beta=0.9", "loss.beta: is for loss.class_weights=effective (given 0.9)"),
        ("loss.beta=0.9 loss.class_weights=balanced", "loss.beta: is for loss.class_weights=effective (given 0.9)"),
        ("optimizer.momentum=0 optimizer.nesterov=true", "optimizer.nesterov: is a kind of momentum"),
        ("schedule.warmup_start=0.1", "schedule.warmup_start: is where a warm-up begins, and schedule.warmup is 0"),
        (
            "schedule=cosine schedule.warmup=50 trainer.epochs=2",
            "schedule.warmup: must be below trainer.epochs (2), or the whole run is one rise (given 50)",
        ),
        (
            "schedule=step",
            "schedule: step never drops the rate in 30 epochs with schedule.every=30 (given step); lower that",
        ),
        ("schedule=step schedule.every=40 schedule.factor=0.5", "schedule.every: step never drops the rate in 30"),
        ("schedule=multistep data=mnist", "schedule: multistep never drops the rate in 5 epochs with schedule.milest"),
        ("schedule=multistep schedule.milestones=[40]", "schedule.milestones: multistep never drops the rate in 30"),
        (
            "schedule=multistep schedule.milestones=[3,60]",
            "schedule.milestones: must be below trainer.epochs (30), the end of the run (given [3,60]); leave out",
        ),
        ("schedule=plateau data=mnist", "schedule: plateau never drops the rate in 5 epochs with schedule.patience=5"),
        ("schedule=plateau schedule.patience=28", "schedule.patience: plateau never drops the rate in 30 epochs"),
        ("model.new_head=true", "model.new_head: is for weights to start from, and none are loaded (given true)"),
        ("model.allow_missing=[fc]", "model.allow_missing: is for weights to start from"),
        ("model.allow_unused=[fc]", "model.allow_unused: is for weights to start from"),
        ("finetune.groups=3", "finetune.groups: is for pretrained weights, and finetune.mode is none (given 3)"),
        ("finetune.unit=block", "finetune.unit: is for pretrained weights"),
        ("finetune.norm=frozen", "finetune.norm: is for pretrained weights"),
        ("finetune=C finetune.groups=[a,b] finetune.unit=block", "finetune.unit: is for groups found by rule"),
        ("finetune=lpft trainer.epochs=2", "trainer.epochs: the head alone learns for finetune.head_epochs=2 of 2"),
        ("finetune=C finetune.head_epochs=10", "finetune.head_epochs: the head alone learns for"),
        ("finetune=B finetune.unfreeze=[3,11]", "finetune.unfreeze: must be up to trainer.epochs (10), the last of"),
        ("model.head.activation=tanh", "model.head.activation: follows hidden layers, and model.head.hidden is empty"),
        ("model=torchvision model.name=my:net model.library=timm", "model.library: is where a name is looked up"),
        ("model=cnn ++model.args.hidden_activation=tanh", "model.args.hidden_activation: follows hidden layers"),
        ("model=cnn ++model.args.drop_block_size=3", "model.args.drop_block_size: is for blocks with drop_block"),
        ("model=cnn ++model.args.init_std=0.1 ++model.args.init=he", "model.args.init_std: is for model.args.init=no"),
        ("augment=none trainer.probe=50", "trainer.probe: scores training images unaugmented, and nothing augments"),
        ("trainer.early_stop=29", "trainer.early_stop: can end no run of trainer.epochs=30 sooner (given 29)"),
    ],
)
def test_what_was_typed_and_acts_on_nothing_is_refused_in_one_line(line: str, fault: str) -> None:
    found = faults(line)
    assert len(found) == 1
    assert found[0].startswith(fault)


@pytest.mark.parametrize(
    "line",
    [
        "data=mnist data.root=x data.download=true",
        "data.download=false data.val=0.3 augment.mix.p=0 trainer.probe=0 finetune.cache_features=auto",
        "data=imagefolder data.root=. data.crop=0.9 data.crop_mode=border data.workers=2 data.on_bad_image=skip",
        "augment=[mixup,cutmix] augment.mix={p:0.5,switch_p:0.3,mode:pair,off_epoch:29}",
        "augment=progressive trainer.epochs=2",
        "loss.class_weights=effective loss.beta=0.9",
        "optimizer.nesterov=true",
        "optimizer.momentum=0 optimizer.nesterov=false",
        "schedule=cosine schedule.warmup=29 schedule.warmup_start=0.1",
        "schedule=multistep schedule.milestones=[3,29] schedule.factor=0.5",
        "schedule=multistep trainer.epochs=40",
        "schedule=step schedule.every=29",
        "schedule=plateau schedule.patience=27",
        "finetune=B model.new_head=true model.allow_missing=[fc] finetune.unit=block finetune.norm=frozen",
        "finetune=B finetune.unfreeze=[3,10]",
        "finetune=lpft trainer.epochs=3",
        "model.head.hidden=[8] model.head.activation=tanh",
        "model=cnn ++model.args.blocks=[{filters:8,drop_block:0.1}] ++model.args.drop_block_size=3",
        "trainer.early_stop=28",
        "data=imagefolder data.root=. trainer.epochs=1",
        "experiment=mnist_99",
    ],
)
def test_what_acts_passes_and_so_do_values_that_ask_for_nothing(line: str) -> None:
    assert faults(line) == []


@pytest.mark.parametrize(
    "line",
    [
        "augment=[mixup,progressive] augment.mix.off_epoch=9 trainer.early_stop=9",
        "schedule=multistep trainer.epochs=40 schedule.milestones=[30]",
        "finetune=lpft data.per_class=5",
        "finetune=B finetune.unfreeze=[3,9]",
    ],
)
@pytest.mark.parametrize("debug", ["smoke", "overfit"])
def test_a_debug_preset_may_switch_off_what_the_rest_of_the_line_is_for(line: str, debug: str) -> None:
    if (line, debug) != ("schedule=multistep trainer.epochs=40 schedule.milestones=[30]", "overfit"):
        assert faults(f"{line} debug={debug}") == []


def test_a_preset_passes_where_the_same_words_would_not(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    text = "loss: {beta: 0.9}\nschedule: {warmup: 99}\naugment: {mix: {p: 0.5}}\ndata: {workers: 2}\n"
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\n" + text)
    assert faults("experiment=mine", config_dir=tmp_path) == []
    assert faults("experiment=mine schedule.warmup=99", config_dir=tmp_path)[0].startswith("schedule.warmup: must be")


def test_a_word_of_a_sweep_must_act_in_one_of_its_jobs_and_a_listed_value_in_its_own() -> None:
    assert faults("augment=none,mixup augment.mix.p=0.5", multirun=True) == []
    assert faults("data=digits,mnist data.root=x data.download=true", multirun=True) == []
    assert faults("seed=0,1 augment.mix.p=0.5", multirun=True)[0].startswith("augment.mix.p: is for mixed images")
    assert faults("augment=none,mixup augment.mix.p=0.5,0.7", multirun=True)[0].startswith("augment.mix.p: is for")
    assert faults("schedule=cosine,step", multirun=True)[0].startswith("schedule: step never drops the rate in 30")
    assert faults("schedule=step trainer.epochs=20,40", multirun=True)[0].startswith("schedule: step never drops")
    words = "schedule=multistep schedule.milestones=[3] schedule.warmup=5 trainer.epochs=4,40"
    assert faults(words, multirun=True)[0].startswith("schedule.warmup: must be below trainer.epochs (4)")


def test_a_run_of_a_comparison_is_not_told_what_acts_in_the_others_alone() -> None:
    runs = plan.combinations(["augment=none,mixup", "augment.mix.p=0.5"])
    assert [run.words for run in runs] == [("augment=none",), ("augment=mixup", "augment.mix.p=0.5")]
    assert [run.values for run in runs] == [{"augment": "none"}, {"augment": "mixup"}]
    assert all(compose_settings(list(run.words)) == run.settings for run in runs)
    assert all(compose_line(list(run.words)) for run in runs)
    with pytest.raises(ConfigErrors, match=r"augment.mix.p: is for mixed images"):
        plan.combinations(["seed=0,1", "augment.mix.p=0.5"])


def test_folders_in_place_of_a_data_set_are_told_what_was_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos" / "train" / "cat").mkdir(parents=True)
    (tmp_path / "photos" / "train" / "cat" / "1.JPG").touch()
    (tmp_path / "other").mkdir()
    (tmp_path / "train.csv").touch()
    (tmp_path / "x.npz").touch()
    meant = "did you mean data=imagefolder data.root=photos?"
    advice = "did you mean data=table data.root=train.csv?"
    for words, end in {
        "data.root=photos": meant,
        "train data.root=photos debug=smoke": meant,
        "check data.root=photos": meant,
        "preview data.root=photos": meant,
        "compare seed=0,1 data.root=photos": meant,
        "-m seed=0,1 data.root=photos": meant,
        "data=photos": meant,
        "data.root=other": "such as data=mnist or data=imagefolder, or leave it out",
        "data=other": "did you mean data=imagefolder data.root=other?",
        "data.root=train.csv": advice,
        "data=train.csv": advice,
        "data=x.npz": "did you mean data=arrays data.root=x.npz?",
        "data.root=x.npz": "did you mean data=arrays data.root=x.npz?",
    }.items():
        assert cli.main(words.split()) == 2
        err = capsys.readouterr().err.splitlines()
        assert len(err) == 1
        assert err[0].endswith(end)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "photos", "train.csv", "x.npz"]


def test_a_summary_trains_nothing_and_minds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "_load", lambda command: lambda *given, **named: None)
    assert cli.main(["summary", "trainer.early_stop=99"]) == 0


@pytest.mark.parametrize(
    ("command", "words", "fault"),
    [
        ("resume", ["loss.beta=0.9"], "loss.beta: is for loss.class_weights=effective (given 0.9)"),
        ("resume", ["trainer.epochs=50"], ""),
        ("eval", ["trainer.ema=0.9"], "trainer.ema: eval trains nothing (given 0.9); leave it out"),
        ("predict", ["loss.label_smoothing=0.2"], "loss.label_smoothing: predict trains nothing (given 0.2)"),
        ("explain", ["augment.pad_crop=null"], "augment.pad_crop.padding: explain trains nothing (given null)"),
        ("eval", ["data.root=photos"], "data.root: data=digits, the default, comes with cnntrain"),
        ("eval", ["data.batch_size=9", "trainer.device=cpu", "trainer.threads=1", "trainer.epochs=30"], ""),
        ("predict", ["data.workers=2"], ""),
        ("predict", ["data.root=photos"], "data.root: predict reads no images of a data set (given "),
        *(
            (command, ["data.root=photos"], "data.root: data=digits, the default, comes with cnntrain")
            for command in ("report", "explain", "export")
        ),
        ("export", ["data.crop=0.9"], ""),
        ("eval", ["data.limit=100"], "data.limit: eval trains nothing (given 100); leave it out"),
        ("eval", ["model.weights=x.pt"], "model.weights: is for the start, and the run has weights of its own (given"),
        ("resume", ["model.weights=x.pt"], "model.weights: is for the start, and the run has weights of its own"),
    ],
)
def test_an_override_of_a_saved_run_must_act_in_the_command(command: str, words: list[str], fault: str) -> None:
    plain = yaml.safe_load(to_yaml(compose_settings([])))
    found = no_effect.faults_of_saved(command, restore_config(plain, words))
    assert found[0].startswith(fault) if fault else found == []


def test_a_run_without_a_checkpoint_may_still_begin_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "_load", lambda command: lambda *given: None)
    (tmp_path / "config.yaml").write_text(to_yaml(compose_settings([])))
    assert cli.main(["resume", str(tmp_path), "model.weights=x.pt"]) == 0
    (tmp_path / "checkpoints").mkdir()
    assert cli.main(["resume", str(tmp_path), "model.weights=x.pt"]) == 2


def test_the_rules_speak_of_keys_that_there_are() -> None:
    known: dict[str, Any] = {
        "model.args.hidden_activation": 0,
        "model.args.drop_block_size": 0,
        "model.args.init_std": 0,
    }
    for schedule in ("step", "multistep", "plateau"):
        known |= keys_of({"schedule": schedule, "optimizer": "sgd"})
    for rule in needs.RULES:
        assert all(key.endswith("=") or key in known for key in rule.keys.split())
