"""Every kind of fault is one line that names the key, the rule and what to do, and all of them come together."""

import pytest

from cnntrain.config.compose import examine, make_composer
from cnntrain.config.composer import Composer


@pytest.fixture(scope="module")
def composer() -> Composer:
    """One for many lines: it remembers what it composed."""
    return make_composer()


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
        ("loss=0.1", "loss: no option 0.1; options: asymmetric, bce, cross_entropy, focal"),
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
        ("data.name=${data.rot}", "data.name: Interpolation key 'data.rot' not found"),
        ("loss.name=${data.rot}", "loss.name: Interpolation key 'data.rot' not found"),
        ("optimizer=timm optimizer.lr=1 optimizer.name=${a}", "optimizer.name: Interpolation key 'a' not found"),
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
