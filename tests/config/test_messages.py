"""Every kind of fault is one line that names the key, the rule and what to do, and all of them come together."""

import os
import re
from pathlib import Path

import pytest
import yaml

from cnntrain import cli
from cnntrain.compare import plan
from cnntrain.config.compose import compose_line, compose_settings, examine, make_composer
from cnntrain.config.composer import Composer
from cnntrain.config.errors import ConfigErrors
from cnntrain.config.overrides import quote
from cnntrain.config.plain import to_plain, to_yaml
from cnntrain.config.run_config import restore_config
from cnntrain.errors import ConfigError, UnsafeError


def faults(*words: str, config_dir: Path | None = None, multirun: bool = False) -> list[str]:
    try:
        compose_line(list(words), config_dir=str(config_dir) if config_dir else None, multirun=multirun)
    except ConfigErrors as errors:
        return errors.faults
    return []


@pytest.fixture(scope="module")
def composer() -> Composer:
    """One for many lines: it remembers what it composed."""
    return make_composer()


def write(folder: Path, path: str, text: str) -> None:
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_text(text)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        # misspelt
        ("data.batch_sze=64", "data.batch_sze: no such key (given 64); did you mean data.batch_size?"),
        (
            "augment.pad_crop.paddding=2",
            "augment.pad_crop.paddding: no such key (given 2); did you mean augment.pad_crop.padding?",
        ),
        ("batch_size=64", "batch_size: no such key (given 64); did you mean data.batch_size?"),
        ("trainer.lr=1", "trainer.lr: no such key (given 1); did you mean optimizer.lr?"),
        ("modle=resnet18", "modle: no such key (given resnet18); did you mean model?"),
        ("model=resnet81", "model: no option resnet81; did you mean model=resnet18? `cnntrain models` lists them"),
        ("augment=[hflip,padcrop]", "augment: no option padcrop; did you mean augment=pad_crop?"),
        ("schedule=cosin", "schedule: no option cosin; did you mean schedule=cosine?"),
        ("recipe=cifar11", "recipe: no option cifar11; did you mean recipe=cifar10?"),
        ("experiment=nothing_like_it", "experiment: no option nothing_like_it"),
        ("hydra.run.dri=x", "hydra.run.dri: no such key (given x); did you mean hydra.run.dir?"),
        ("hydra.rnu.dir=x", "hydra.rnu.dir: no such key (given x); did you mean hydra.run.dir?"),
        ("hydra/launcher=nowhere", "hydra/launcher: no option nowhere; "),
        (
            "model.args.poling=avg",
            "model.args.poling: no such argument of lenet5 (given avg); did you mean model.args.pooling?",
        ),
        (
            "model.args.hiddn=[3]",
            "model.args.hiddn: no such argument of lenet5 (given [3]); lenet5 takes activation, pooling",
        ),
        ("model.args.pooling=min", "model.args.pooling: must be one of max, avg (given min)"),
        ("augment.own.args.k=2", "augment.own.args.k: own is off (given 2); switch it on first"),
        ("augment.own.args={k:2}", "augment.own.args: own is off (given {k:2}); switch it on first"),
        # wrong type
        ("optimizer.lr=fast", "optimizer.lr: must be a number > 0 (given fast)"),
        ("trainer.epochs=1.5", "trainer.epochs: must be a whole number >= 1 (given 1.5)"),
        ("trainer.epochs=null", "trainer.epochs: must be a whole number >= 1 (given null)"),
        (
            "trainer.compile=perhaps",
            "trainer.compile: must be true or false, or reduce-overhead, or max-autotune (given perhaps)",
        ),
        ("trainer.profile=10", "trainer.profile: must be true or false (given 10)"),
        ("trainer.channels_last=-1", "trainer.channels_last: must be true or false, or null (given -1)"),
        ("optimizer.momentum=true", "optimizer.momentum: must be a number >= 0 and < 1 (given true)"),
        ("data.limit=most", "data.limit: must be a number > 0, or null (given most)"),
        ("data.mean=[0.5,grey]", "data.mean: must be a list"),
        ("loss=0.1", "loss: must be keys and values"),
        (
            "trainer.precision=bf61",
            "trainer.precision: must be one of auto, fp32, tf32, bf16, fp16 (given bf61); did you mean bf16?",
        ),
        # out of range
        ("trainer.epochs=0", "trainer.epochs: must be a whole number >= 1 (given 0)"),
        ("optimizer.lr=-1", "optimizer.lr: must be a number > 0 (given -1.0)"),
        ("optimizer.lr=nan", "optimizer.lr: must be a number > 0 (given nan)"),
        ("optimizer.lr=inf", "optimizer.lr: must be a number > 0 (given inf)"),
        ("seed=-1", "seed: must be a whole number >= 0 and < 9223372036854775808 (given -1)"),
        ("data.limit=1.5", "data.limit: must be a fraction up to 1.0"),
        ("data.crop=1.6", "data.crop: must be a number >= 0.1 and <= 1.5, or null (given 1.6)"),
        ("data.interpolation=cubic", "data.interpolation: must be one of bilinear, bicubic, or null (given cubic)"),
        ("data.folds=1", "data.folds: must be a whole number >= 2, or null (given 1)"),
        ("data.folds=5 data.fold=5", "data.fold: must be below data.folds, from 0 to 4 (given 5)"),
        ("data.fold=1", "data.fold: must be 0 without data.folds, which says how many there are (given 1)"),
        ("trainer.max_time=soon", "trainer.max_time: must be a time such as 90s"),
        *(
            (
                f"trainer.save_every={word}",
                f"trainer.save_every: must be a number of steps >= 1, or a time such as 90s, 5m or 1.5h (given {word})",
            )
            for word in ("0", "0m", "soon", "1.5", "true", "null")
        ),
        ("trainer.device=cdua", "trainer.device: must be auto, cpu, cuda"),
        (
            "finetune.mode=lpft",
            "finetune.mode: more than the name belongs to it (given lpft); choose with finetune=lpft",
        ),
        ("model.name=resnet50", "model.name: more than the name belongs to it (given resnet50); choose with model="),
        ("data.name=cifar10", "data.name: more than the name belongs to it (given cifar10); choose with data=cifar10"),
        ("augment=mixup augment.mix.off=3", "augment.mix.off: no such key (given 3); did you mean augment.mix.off_"),
        (
            "model=cnn model.args.blocks=[{filters:4,repeat:100000000000}]",
            "model.args.blocks[0].repeat: must be a whole number from 1 to 1000 (given 100000000000)",
        ),
        ("data.root=", "data.root: must not be empty"),
        # wrong within, or by what an interpolation gives
        (
            "model.head.hidden=[[1]]",
            "model.head.hidden: must be a list, such as [3,6], each item a whole number (given",
        ),
        ("data.mean=[[1]]", "data.mean: must be a list, such as [0.5,1.0], each item a number, or null (given [[1]])"),
        ("data.mean=${trainer.epochs}", "data.mean: must be a list, such as [0.5,1.0], each item a number, or null"),
        ("model.head.hidden=${seed}", "model.head.hidden: must be a list, such as [3,6], each item a whole number"),
        ("augment.hflip=${augment.vflip}", "augment.hflip: must be keys and values"),
        # beyond what a machine has
        ("seed=" + "9" * 23, "seed: must be at most 9,223,372,036,854,775,807 (given 99999999999999999999999)"),
        ("trainer.epochs=" + "9" * 23, "trainer.epochs: must be at most 10,000,000 (given 9999"),
        ("optimizer.lr=" + "9" * 400, "optimizer.lr: must be a number > 0 (given 9999"),
        ("seed=" + "9" * 5000, "seed: cannot be read (given 9999"),
        ("trainer.threads=100000", "trainer.threads: must be at most 1,024 (given 100000)"),
        ("data.workers=100000", "data.workers: must be at most 1,024 (given 100000)"),
        ("data.image_size=100000", "data.image_size: must be at most 16,384 (given 100000)"),
        ("model=cnn model.args.blocks=[" + "9" * 30 + "]", "model.args: must be at most 9,223,372,036,854,775,807"),
        ("finetune.groups=" + "9" * 30, "finetune.groups: must be at most 9,223,372,036,854,775,807"),
        # of Hydra
        ("hydra.searchpath=1", "hydra.searchpath: must be a list of folders that are there"),
        ("hydra.searchpath=[nowhere]", "hydra.searchpath: must be a list of folders that are there"),
        ("hydra.searchpath=[pkg://nowhere]", "hydra.searchpath: must be a list of folders that are there"),
        ("hydra.mode=x", "hydra.mode: this value does not fit (given x)"),
        ("+hydra.run.dir=x", "hydra.run.dir: is there already; leave out the +"),
        # of another option
        (
            "optimizer=adamw optimizer.momentum=.9",
            "optimizer.momentum: adamw has no momentum (given .9); sgd, rmsprop and muon have it",
        ),
        (
            "schedule=cosine schedule.milestones=[3]",
            "schedule.milestones: cosine has no milestones (given [3]); multistep has it: schedule=multistep",
        ),
        (
            "optimizer.name=adamw",
            "optimizer.name: the numbers belong to the name (given adamw); choose with optimizer=adamw",
        ),
        ("schedule.name=step", "schedule.name: the numbers belong to the name (given step); choose with schedule=step"),
        (
            "augment.vflip.p=0.1",
            "augment.vflip.p: vflip is off (given 0.1); switch it on first, such as 'augment=[vflip]'",
        ),
        ("augment.vflip={p:0.1}", "augment.vflip: vflip is off"),
        # missing
        ("data=imagefolder", "data.root: missing; give the folder of the images"),
        ("model=torchvision", "model.name: missing; give a network"),
        # what Hydra's grammar allows elsewhere
        ("+new.key=3", "new.key: no such key (given 3)"),
        ("++trainer.new=3", "trainer.new: no such key (given 3)"),
        ("+trainer.epochs=3", "trainer.epochs: is there already; leave out the +"),
        ("+model=cnn", "model: is there already; leave out the + and write model=cnn"),
        ("~trainer.epochs", "trainer.epochs: keys cannot be taken away"),
        ("~data", "data: cannot be left out; choose with data=OPTION"),
        ("model=null", "model: no option null; "),
        ("experiment=null", "experiment: null is no option; leave the group out with ~experiment"),
        ("optimizer=[sgd,adamw]", "optimizer: takes one option (given [sgd,adamw])"),
        (
            "optimizer=sgd,adamw",
            "optimizer: takes one value (given sgd,adamw); add -m for one run each, or type cnntrain compare",
        ),
        (
            "trainer.epochs=1,2",
            "trainer.epochs: takes one value (given 1,2); add -m for one run each, or type cnntrain compare",
        ),
        ("augment=hflip,vflip", "augment: several options stand in brackets; write 'augment=[hflip,vflip]', or add -m"),
        ("model@other=cnn", "model@other: no part of the config is chosen by that (given cnn); write model=cnn"),
        ("trainer={epochz:3}", "trainer.epochz: no such key (given 3); did you mean trainer.epochs?"),
        (
            "optimizer=lamb",
            "optimizer: no option lamb; options: adam, adamw, muon, own, rmsprop, sgd, timm, torch; of timm or torch: "
            "optimizer=timm optimizer.name=lamb",
        ),
        # rules between sections
        (
            "trainer.compile=true model.drop_schedule=linear",
            "trainer.compile: must be false with model.drop_schedule=linear",
        ),
        # syntax
        ("train", "train: neither KEY=VALUE nor a flag; a command "),
        ("=3", "=3: the key is missing; write KEY=VALUE"),
        ("trainer.epochs==3", "trainer.epochs: one = is enough (given ==3); write trainer.epochs=3"),
        ("model.name=~/nets", "model.name: needs quotes (given ~/nets); write \"model.name='~/nets'\""),
        ("data.root==/a", "data.root: one = is enough (given ==/a); write data.root=/a"),
        ("data.root=a,b", "data.root: a comma makes a list (given a,b); write \"data.root='a,b'\""),
        ("hydra.run.dir=~/a,b", "hydra.run.dir: a comma makes a list (given ~/a,b); write \"hydra.run.dir='~/a,b'\""),
        (
            "augment=[hflip",
            "augment: brackets or commas do not fit (given [hflip); write a list as 'augment=[a,b]', in quotes",
        ),
        (
            "optimizer.lr_factors={nothing: 3}",
            "optimizer.lr_factors: a space has ended the word (given {nothing: 3}); write "
            "'optimizer.lr_factors={nothing: 3}', in quotes",
        ),
        (
            "augment=[hflip, vflip] seed=1",
            "augment: a space has ended the word (given [hflip, vflip]); write 'augment=[",
        ),
        (
            "optimizer.lr_factors={conv1:3",
            "optimizer.lr_factors: brackets or commas do not fit (given {conv1:3); write names as "
            "'optimizer.lr_factors={a: 1, b: 2}', in quotes",
        ),
        ("data.root=${data.rot}", "data.root: Interpolation key 'data.rot' not found"),
        ("a b=c", "a: neither KEY=VALUE"),
    ],
)
def test_each_kind_of_fault_is_told_in_one_line(composer: Composer, line: str, fault: str) -> None:
    found = examine(composer, line.split(), multirun=False, complete=True).faults
    assert found
    assert "\n" not in "".join(found)
    assert found[0].startswith(fault)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("augment=resized_crop augment.resized_crop.scale=[1,0.1]", "augment.resized_crop.scale: must be two numbers"),
        ("augment=resized_crop augment.resized_crop.ratio=[1]", "augment.resized_crop.ratio: must be two numbers"),
        ("augment=pad_crop augment.pad_crop.mode=edge", "augment.pad_crop.mode: must be zeros or reflect"),
        ("augment=rotation augment.affine.degrees=0", "augment.affine.degrees: must be above 0, where translate,"),
        ("augment=hue augment.color_jitter.hue=0", "augment.color_jitter.brightness: must be above 0, where contrast,"),
        ("augment=posterize augment.posterize.bits=8", "augment.posterize.bits: must be a whole number >= 0 and <= 7"),
        ("augment=sharpness augment.sharpness.factor=1", "augment.sharpness.factor: must be below 1 to blur"),
        ("augment=blur augment.blur.kernel_size=4", "augment.blur.kernel_size: must be an odd number"),
        ("augment=blur augment.blur.sigma=[2,1]", "augment.blur.sigma: must be two numbers"),
        ("augment=random_erasing augment.random_erasing.ratio=[1,2,3]", "augment.random_erasing.ratio: must be two"),
        ("augment=own", "augment.own.name: missing; name your function"),
        ("data.classes=[a,???]", "data.classes: an item is missing (given ['a', '???']); write its value in place of"),
        ("loss.class_weights={a:???}", "loss.class_weights: an item is missing (given {'a': '???'}); write its value"),
        ("augment=own augment.own.name=noise", "augment.own.name: must be package.module:function"),
        ("augment=[augmix,cutmix] augment.augmix.jsd=12", "augment.augmix.jsd: must be 0 with mixup or cutmix"),
        ("augment=mixup augment.mix.off_epoch=0", "augment.mix.off_epoch: must be a whole number >= 1, or null"),
        ("augment=progressive augment.progressive.start=1", "augment.progressive.start: must be a number > 0 and < 1"),
        ("loss.class_weights=even", "loss.class_weights: must be null, balanced, effective, or a list"),
        ("loss.class_weights=[1,-1]", "loss.class_weights: must be null, balanced, effective, or a list"),
        ("loss.class_weights={a:0}", "loss.class_weights: must be null, balanced, effective, or a list"),
        ("loss.class_weights=balanced data.sampling=balanced", "loss.class_weights: must be null with data.sampling="),
        ("data.eval_size=3", "data.eval_size: must be a whole number >= 4, or null"),
    ],
)
def test_augmentation_and_loss_keep_their_rules(composer: Composer, line: str, fault: str) -> None:
    found = examine(composer, line.split(), multirun=False, complete=True).faults
    assert len(found) == 1
    assert found[0].startswith(fault)


@pytest.mark.parametrize(
    "path",
    [
        "/a b",
        "/a b/c=d",
        "~/photos",
        "/it's",
        "/a(1)",
        "/a{b}",
        "/[x]y",
        "a=b",
        "2024_01",
        "007",
        "1e5",
        "true",
        "/ä ö",
    ],
)
def test_a_path_is_taken_as_it_is_typed(path: str) -> None:
    whole = os.path.abspath(os.path.expanduser(path))
    assert compose_settings([f"data.root={path}"]).data.root == whole
    assert compose_settings([f"data.root={quote(path)}"]).data.root == whole
    assert compose_settings([f"model.weights={path}"]).model.weights == path
    saved = restore_config(to_plain(compose_settings([])), [f"data.root={path}"]).settings
    assert saved.data.root == whole


def test_a_list_of_paths_is_one_of_paths_as_typed() -> None:
    runs = plan.combinations(["data=mnist", "data.root=~/a b,007,'c,d'"])
    assert [run.settings.data.root for run in runs] == [
        os.path.expanduser("~/a b"),
        os.path.abspath("007"),
        os.path.abspath("c,d"),
    ]


def test_a_word_that_cannot_be_read_is_one_fault() -> None:
    assert len(faults("model=torchvision", "model.name=~x")) == 1
    assert len(faults("data=imagefolder", "data.root=[a]")) == 1


def test_faults_of_all_kinds_are_told_together() -> None:
    found = faults(
        "modle=cnn", "model=cnn4", "data.batch_sze=3", "optimizer.lr=fast", "trainer.epochs=0", "x", "data=imagefolder"
    )
    keys = {line.partition(":")[0] for line in found}
    assert keys == {"modle", "model", "data.batch_sze", "optimizer.lr", "trainer.epochs", "x", "data.root"}


@pytest.mark.parametrize(
    "line",
    [
        "trainer={epochs:3}",
        "model.args.activation=tanh",
        "++model.args.pooling=avg",
        "augment=[for_digits,vflip] augment.vflip.p=0.1",
        "augment.pad_crop=null",
        "~augment",
        "~recipe",
        "hydra.run.dir=/tmp/x",
        "+hydra.job.env_set.A=1",
        "hydra.verbose=true",
        "seed=1 seed=2",
        "data.limit=500 data.val=0.2",
        "trainer.ema=null",
    ],
)
def test_sound_lines_have_no_faults(composer: Composer, line: str) -> None:
    assert examine(composer, line.split(), multirun=False, complete=True).faults == []


@pytest.mark.parametrize(
    ("file", "text", "fault"),
    [
        (
            "data/mine.yaml",
            "name: imagefolder\nroot: /x\nbatch_sze: 3\nvall: 0.1\n",
            "data.batch_sze: no such key (given 3)",
        ),
        (
            "data/mine.yaml",
            "name: imagefolder\nroot: /x\nimage_size: many\n",
            "data.image_size: must be a whole number >= 4, or null (given many)",
        ),
        ("data/mine.yaml", "name: [\n", ":2: not valid YAML"),
        ("experiment/mine.yaml", "# @package _global_\ntrianer: {epochs: 3}\n", "trianer: no such key"),
        (
            "experiment/mine.yaml",
            "# @package _global_\ndefaults:\n  - override /optimizer: adamz\n",
            "optimizer: no option adamz",
        ),
        (
            "experiment/mine.yaml",
            "# @package _global_\ndefaults:\n  - override /augment: hflop\n",
            "augment: no option hflop",
        ),
        (
            "experiment/mine.yaml",
            "# @package _global_\ndefaults:\n  - override /optimizer: adamw\noptimizer: {momentum: 0.5}\n",
            "optimizer.momentum: adamw has no momentum (given 0.5)",
        ),
    ],
)
def test_faults_in_files_of_the_user_are_told_with_their_file(tmp_path: Path, file: str, text: str, fault: str) -> None:
    write(tmp_path, file, text)
    group = file.partition("/")[0]
    found = faults(f"{group}=mine", "model=cnn", "trainer.epochs=0", config_dir=tmp_path)
    assert fault in found[0]
    if "option" not in fault:
        assert found[0].startswith(str(tmp_path / file))
    assert found[-1].startswith("trainer.epochs")
    assert len(found) == (3 if "vall" in text else 2)


@pytest.mark.parametrize(
    ("file", "text", "fault"),
    [
        ("mine.yaml", "seed: 3\n", "--config-name: mine is no training config; let its defaults list begin with train"),
        ("mine.yaml", "defaults: [train, _self_]\nsede: 3\n", "FILE: sede: no such key (given 3)"),
        ("mine.yaml", "defaults: [train, _self_]\nseed: [\n", "FILE:3: not valid YAML"),
        ("other.yaml", "", "--config-name: no mine.yaml in "),
    ],
)
def test_a_config_of_ones_own_is_found_and_its_faults_are_told(
    tmp_path: Path, file: str, text: str, fault: str
) -> None:
    write(tmp_path, file, text)
    with pytest.raises(ConfigErrors) as told:
        compose_line(["seed=2"], config_dir=str(tmp_path), config_name="mine")
    assert len(told.value.faults) == 1
    assert told.value.faults[0].startswith(fault.replace("FILE", str(tmp_path / file)))
    write(tmp_path, "mine.yaml", "defaults: [train, _self_]\nseed: 3\n")
    assert compose_line([], config_dir=str(tmp_path), config_name="mine").settings.seed == 3


def test_an_optimizer_of_the_users_says_which_of_ours_it_derives_from(tmp_path: Path) -> None:
    write(tmp_path, "optimizer/lion.yaml", "name: lion\nlr: 0.1\n")
    (fault,) = faults("optimizer=lion", config_dir=tmp_path)
    assert fault.startswith(
        "optimizer.name: must be one of sgd, adam, adamw, rmsprop, muon, timm, torch, or package.module:function "
        "(given lion); "
    )
    write(tmp_path, "optimizer/mine.yaml", "defaults: [sgd, _self_]\nlr: 0.3\n")
    assert faults("optimizer=mine", config_dir=tmp_path) == []


def test_a_file_that_names_an_optimizer_of_ours_and_derives_from_none_lacks_its_numbers(tmp_path: Path) -> None:
    write(tmp_path, "optimizer/mine.yaml", "name: sgd\nlr: 0.1\n")
    lacking = [f"optimizer.{key}: missing; write optimizer.{key}=VALUE" for key in ("momentum", "nesterov")]
    assert set(lacking) < set(faults("optimizer=mine", config_dir=tmp_path))


@pytest.mark.parametrize("value", [[1], {"a": 1}, None, int("f" * 5000, 16)], ids=["list", "mapping", "null", "huge"])
def test_a_saved_config_whose_optimizer_has_no_name_is_told(value: object) -> None:
    plain = to_plain(compose_settings([]))
    plain["optimizer"]["name"] = value
    with pytest.raises(ConfigErrors, match=r"^x\.yaml: [^\n]*$"):
        restore_config(plain, source="x.yaml")


@pytest.mark.parametrize(
    "line",
    [
        "+hydra.callbacks.x._target_=os.system",
        "hydra.launcher._target_=os.system",
        "hydra.sweeper._target_=os.system",
        "+hydra.job_logging.handlers.x.class=os.system",
    ],
)
def test_code_that_hydra_would_run_is_refused(line: str) -> None:
    with pytest.raises(UnsafeError, match=r"^hydra\.\S+: os\.system would run code"):
        faults(line)


@pytest.mark.parametrize(
    ("part", "key"),
    [
        ("callbacks: {x: {_target_: os.system}}", "callbacks.x._target_"),
        ("job_logging: {formatters: {x: {(): os.system}}}", "job_logging.formatters.x.()"),
    ],
)
def test_code_in_a_preset_is_refused(tmp_path: Path, part: str, key: str) -> None:
    write(tmp_path, "experiment/theirs.yaml", f"# @package _global_\nhydra: {{{part}}}\n")
    with pytest.raises(UnsafeError, match=rf"^hydra\.{re.escape(key)}: os\.system would run code"):
        faults("experiment=theirs", config_dir=tmp_path)


@pytest.mark.parametrize(
    ("part", "key"),
    [
        ("callbacks: {x: '${oc.create:{_target_:os.system}}'}", "callbacks.x"),
        ("callbacks: {x: '${oc.decode:abc}'}", "callbacks.x"),
        ("callbacks: {x: '${model.args}'}", "callbacks.x"),
        ("callbacks: {x: {_target_: hydra.experimental.callbacks.X, y: [{_target_: os.system}]}}", "callbacks.x.y.0"),
        ("job_logging: {handlers: {x: {class: logging.FileHandler, filename: /tmp/x}}}", "job_logging.handlers.x"),
        ("job_logging: {handlers: {x: {class: logging.StreamHandler, stream: ext://evil.x}}}", "job_logging.handlers"),
        ("output_subdir: /tmp/x", "output_subdir"),
        ("output_subdir: ../x", "output_subdir"),
    ],
)
def test_a_preset_reaches_no_code_and_no_file_by_a_detour(tmp_path: Path, part: str, key: str) -> None:
    write(tmp_path, "experiment/theirs.yaml", f"# @package _global_\nhydra: {{{part}}}\n")
    with pytest.raises(UnsafeError, match=rf"^hydra\.{re.escape(key)}\S*: .*; leave it out$"):
        faults("experiment=theirs", config_dir=tmp_path)


def test_logging_into_the_run_folder_and_to_the_terminal_is_no_fault(tmp_path: Path) -> None:
    handlers = (
        "{file: {class: logging.FileHandler, filename: '${hydra.runtime.output_dir}/x.log'}, "
        "console: {class: logging.StreamHandler, stream: ext://sys.stdout}}"
    )
    logged = f"# @package _global_\nhydra: {{job_logging: {{handlers: {handlers}}}, output_subdir: .hydra}}\n"
    write(tmp_path, "experiment/ours.yaml", logged)
    assert faults("experiment=ours", config_dir=tmp_path) == []


def test_names_beyond_ascii_are_told_how_to_be_written() -> None:
    (fault,) = faults("data.classes=[猫,Käfer]")
    assert fault.startswith(
        "data.classes: names beyond ASCII take quotes inside the brackets (given [猫,Käfer]); write"
    )
    assert faults("data.classes=['猫','Käfer']") == []
    (fault,) = faults("loss.class_weights={猫: 2, Käfer: 1}")
    assert fault.startswith("loss.class_weights: names in braces take ASCII letters alone (given {猫: 2, Käfer: 1});")


@pytest.mark.parametrize(
    "words", [["model=torchvision", "model.name=resnet50"], ["model=timm", "model.name=resnet18"], ["model.name=a:b"]]
)
def test_a_name_may_be_set_where_nothing_else_belongs_to_it(words: list[str]) -> None:
    assert faults(*words) == []


def test_what_a_recipe_says_in_vain_is_told(tmp_path: Path) -> None:
    for folder in ("data", "recipe"):
        (tmp_path / folder).mkdir()
    (tmp_path / "data" / "mine.yaml").write_text("defaults: [imagefolder]\nroot: photos\n")
    recipe = tmp_path / "recipe" / "mine.yaml"
    recipe.write_text("# @package _global_\ntrainer: {epochs: 3}\noptimizer: {lr: 0.02}\n")
    (fault,) = faults("data=mine", config_dir=tmp_path)
    assert fault == (
        "recipe/mine.yaml: optimizer: is overruled by files that come later; write it into recipe/sgd_mine.yaml, which "
        "holds the keys alone, such as lr"
    )
    recipe.write_text("trainer: {epochs: 3}\n")
    (fault,) = faults("data=mine", config_dir=tmp_path)
    assert fault.endswith("let the file of the recipe begin with '# @package _global_'")
    recipe.write_text("# @package _global_\ntrainer: {epochs: 3}\n")
    (tmp_path / "recipe" / "sgd_mine.yaml").write_text("lr: 0.02\n")
    settings = compose_settings(["data=mine"], str(tmp_path))
    assert (settings.trainer.epochs, settings.optimizer.lr) == (3, 0.02)


def test_two_words_in_one_are_told(composer: Composer) -> None:
    found = examine(composer, ["model=resnet18 data=digits"], multirun=False, complete=True).faults
    fault = "model: two words in one (given resnet18 data=digits); write data=... outside of the quotes"
    assert found == [fault]


def test_the_base_of_a_data_file_is_told_where_it_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name, base in {"slip": "imagefoldr", "one": "two", "two": "one"}.items():
        (tmp_path / "data" / f"{name}.yaml").write_text(f"defaults: [{base}]\nroot: photos\n")
    (fault,) = faults("data=slip", config_dir=tmp_path)
    assert fault.startswith(
        f"{tmp_path / 'data' / 'slip.yaml'}: data: no option imagefoldr; did you mean data=imagefolder?"
    )
    ring = "data=one: its defaults list leads back to itself; let it begin with an option of cnntrain's"
    assert faults("data=one", config_dir=tmp_path) == [ring]


def test_a_missing_config_dir_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"^--config-dir: no such folder \(given {tmp_path / 'nowhere'}\)$"):
        faults(config_dir=tmp_path / "nowhere")


def test_each_job_of_a_sweep_is_checked() -> None:
    assert faults("optimizer=sgd,adamw", "seed=0,1", multirun=True) == []
    found = faults("optimizer=sgd,adamw", "optimizer.momentum=0.8", "trainer.epochs=0,1", multirun=True)
    assert [line.partition(":")[0] for line in found] == ["trainer.epochs", "optimizer.momentum"]
    assert faults("model=cnn,lenet6", multirun=True)[0].startswith("model: no option lenet6")
    assert faults("seed=range(100000)", multirun=True) == []
    assert faults("optimizer.lr=interval(-1,1)", multirun=True)[0].startswith("optimizer.lr: must be")


def test_a_preset_that_sweeps_is_checked(tmp_path: Path) -> None:
    sweep = "hydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n      trainer.epochs: 1,0\n"
    write(tmp_path, "experiment/mine.yaml", "# @package _global_\n" + sweep)
    assert faults("experiment=mine", config_dir=tmp_path) == ["trainer.epochs: must be a whole number >= 1 (given 0)"]


def test_a_value_of_a_foreign_run_writes_no_line_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = "\x1b[31m\ncnntrain: error: rm -r all"
    plain = yaml.safe_load(to_yaml(compose_line([]).settings))
    plain["trainer"] |= {odd: 1, "precision": odd}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(plain))
    assert cli.main(["resume", str(tmp_path)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all(r"\x1b[31m\ncnntrain" in line for line in lines)


def test_a_switch_takes_0_and_1_and_no_other_number() -> None:
    taken = compose_settings(["trainer.profile=1", "trainer.tensorboard=0"]).trainer
    assert (taken.profile, taken.tensorboard) == (True, False)
    saved = to_plain(compose_settings([]))
    with pytest.raises(ConfigError, match=r"trainer.profile: must be true or false \(given 2\)"):
        restore_config(saved, ["trainer.profile=2"])
