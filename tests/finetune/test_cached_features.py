"""A head trained on cached features becomes the head that the whole network would have trained."""

import copy
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

from cnntrain.augment.build import build_normalize
from cnntrain.config.schema.augment import AugmentSettings, ProgressiveSettings
from cnntrain.config.schema.data import DataSettings, LoaderKind, OnBadImage, Sampling
from cnntrain.config.schema.finetune import FinetuneSettings, Mode
from cnntrain.config.schema.pieces import CutmixSettings, HflipSettings, MixupSettings, OwnSettings, ResizedCropSettings
from cnntrain.config.schema.settings import Settings
from cnntrain.config.schema.trainer import Precision
from cnntrain.data import common
from cnntrain.data.build import build_data
from cnntrain.data.loaders import MemoryLoader
from cnntrain.errors import ConfigError, Interrupted
from cnntrain.finetune import cached_features
from cnntrain.finetune.cached_features import FeatureLoader, cache, reason_not_to_cache
from cnntrain.runtime.precision import autocast

CPU = torch.device("cpu")
NORMALISE = build_normalize([0.5], [0.5], channels_last=False)
GOES_ON = SimpleNamespace(requested=False, signum=None)


class Report:
    """Keeps what it is told."""

    def __init__(self):
        self.lines, self.images, self.phases = [], 0, []
        self.say, self.end_phase = self.lines.append, lambda: None

    def validating(self, batches, phase):
        self.phases.append((phase, batches))

    def advance(self, images):
        self.images += images


def settings(wish="auto", mode=Mode.A, augment=None):
    return Settings(finetune=FinetuneSettings(mode=mode, cache_features=wish), augment=augment or AugmentSettings())


def digits(**options):
    chosen = DataSettings(name="digits", image_size=8, limit=200, val=50, **{"batch_size": 32} | options)
    return build_data(chosen, AugmentSettings(), seed=3, device=CPU, probe=20, say=list)


def splits(data):
    return {name: getattr(data, name) for name in ("train", "val", "probe") if getattr(data, name)}


def network(head=None, channels=1, classes=10):
    """A small CNN with batch norm and with dropout before its head, and statistics that a training would leave."""
    torch.manual_seed(0)
    model = nn.Sequential()
    model.body = nn.Sequential(
        nn.Conv2d(channels, 16, 3, 2), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5)
    )
    model.head = head or nn.Linear(144, classes)
    model.train()
    for _ in range(3):
        model.body(torch.randn(64, channels, 8, 8))
    model.body.requires_grad_(False)
    return model


def learning(model):
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def cached(loaders, model, chosen=None, *, report=None, stop=GOES_ON, precision=Precision.fp32):
    told: Any = report or Report()
    return cache(
        chosen or settings(True),
        model,
        "head",
        loaders,
        learners=learning(model),
        normalize=NORMALISE,
        device=CPU,
        precision=precision,
        report=told,
        stop=stop,
    )


def train(model, loader, forward, steps):
    """Losses of so many steps of SGD on the head alone, the encoder in evaluation mode."""
    model.train()
    model.body.eval()
    optimizer = torch.optim.SGD(model.head.parameters(), lr=0.1, momentum=0.9)
    losses = []
    epoch = 0
    while len(losses) < steps:
        for inputs, labels, *_ in loader.batches(epoch):
            loss = functional.cross_entropy(forward(inputs), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())  # on the CPU, where nothing waits
        epoch += 1
    return losses


# ---- the same training ----


@pytest.mark.parametrize("zero", [False, True], ids=["default init", "zero init"])
def test_training_on_features_gives_the_losses_and_the_head_of_training_on_images(zero):
    loaders = splits(digits())
    whole = network()
    if zero:
        nn.init.zeros_(whole.head.weight)
    alone = copy.deepcopy(whole)
    encoded = cached(loaders, alone)
    expected = train(whole, loaders["train"], lambda images: whole(NORMALISE(images)), 20)
    losses = train(alone, encoded["train"], alone.head, 20)
    assert expected[-1] < expected[0] / 3
    torch.testing.assert_close(losses, expected, rtol=0, atol=1e-5)
    for ours, theirs in zip(alone.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    for name in ("val", "probe"):
        whole.eval()
        for (inputs, labels, *_), (images, known, *_) in zip(
            encoded[name].batches(), loaders[name].batches(), strict=True
        ):
            assert torch.equal(labels, known)
            torch.testing.assert_close(alone.head(inputs), whole(NORMALISE(images)), rtol=0, atol=1e-4)


def test_in_the_micro_batches_they_were_made_in_features_give_the_very_bits_of_the_network():
    loaders, model = splits(digits()), network()
    encoded = cached(loaders, model)
    model.eval()
    for (inputs, *_), (images, *_) in zip(encoded["val"].batches(), loaders["val"].batches(), strict=True):
        assert torch.equal(model.head(inputs), model(NORMALISE(images)))


def test_features_do_not_depend_on_the_batch_size():
    model = network()
    one, many = (cached(splits(digits(batch_size=size)), model)["train"] for size in (1, 64))
    everything = torch.arange(len(one.labels))
    assert torch.equal(one.labels, many.labels)
    torch.testing.assert_close(one.pick(everything), many.pick(everything), rtol=1e-5, atol=1e-5)


def test_a_head_that_pools_gets_maps():
    model = network(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)))
    model.body = model.body[:3]
    loaders = splits(digits())
    inputs, *_ = next(cached(loaders, model)["val"].batches())
    images, *_ = next(loaders["val"].batches())
    assert inputs.shape == (32, 16, 3, 3)
    assert torch.equal(model.eval().head(inputs), model(NORMALISE(images)))


def test_features_have_the_precision_of_the_training():
    model, loaders = network(), splits(digits())
    model.body.append(nn.Linear(144, 144).requires_grad_(False))
    encoded = cached(loaders, model, precision=Precision.bf16)
    inputs, *_ = next(encoded["val"].batches())
    images, *_ = next(loaders["val"].batches())
    assert inputs.dtype is torch.bfloat16
    with autocast(Precision.bf16, CPU):
        assert torch.equal(model.head(inputs), model.eval()(NORMALISE(images)))


def test_a_head_that_changes_its_input_in_place_finds_it_unchanged_in_the_cache():
    loaders = splits(digits())
    inplace = network(nn.Sequential(nn.LeakyReLU(-2.0, inplace=True), nn.Linear(144, 10)))
    plain = network(nn.Sequential(nn.LeakyReLU(-2.0), nn.Linear(144, 10)))
    inplace.body[2] = plain.body[2] = nn.Identity()
    for (ours, *_), (theirs, *_) in zip(
        cached(loaders, inplace)["val"].batches(), cached(loaders, plain)["val"].batches(), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_caching_leaves_the_network_and_the_random_numbers_as_they_were():
    model = network()
    model.body[1].eval()
    before, modes = copy.deepcopy(model.state_dict()), [module.training for module in model.modules()]
    random = torch.get_rng_state()
    encoded = cached(splits(digits()), model)
    assert torch.equal(torch.get_rng_state(), random)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model.head._forward_pre_hooks
    assert not model.head._forward_hooks
    assert not next(encoded["train"].batches())[0].requires_grad


# ---- the same batches ----


@pytest.mark.parametrize("sampling", list(Sampling))
@pytest.mark.parametrize("batch_size", [32, 199])  # the second would leave a micro-batch of one image
def test_features_come_in_the_micro_batches_of_the_images(sampling, batch_size):
    source = digits(sampling=sampling, batch_size=batch_size).train
    numbers = torch.arange(len(source.labels), dtype=torch.float32)[:, None]
    loader = FeatureLoader(source, numbers)
    assert (loader.images, len(loader), loader.batch_size) == (source.images, len(source), batch_size)
    for epoch in (0, 5):
        found = list(loader.batches(epoch))
        assert len(found) == len(source)
        for batch, known in zip(found, source.batches(epoch), strict=True):
            assert torch.equal(batch.labels, known.labels)
            assert torch.equal(batch.images.squeeze(1).long(), known.indices)
            assert torch.equal(batch.indices, known.indices)
            assert batch.total == known.total


def test_start_gives_exactly_the_tail_of_the_epoch():
    loader = cached(splits(digits()), network())["train"]
    whole = list(loader.batches(4))
    for start in (0, 1, 6, 7):
        tail = list(loader.batches(4, start))
        assert len(tail) == len(whole) - start
        for (rows, labels, *_), (expected, known, *_) in zip(tail, whole[start:], strict=True):
            assert torch.equal(rows, expected)
            assert torch.equal(labels, known)


def test_another_batch_size_and_the_order_of_the_labels_are_those_of_the_images():
    source = digits().train
    loader = FeatureLoader(source, torch.arange(200.0)[:, None])
    smaller, images = loader.at(10, 8), source.at(10, 8)
    assert (smaller.batch_size, len(smaller)) == (10, 20)
    for (_, labels, *_), (_, known, *_) in zip(smaller.batches(2), images.batches(2), strict=True):
        assert torch.equal(labels, known)
    ordered = loader.in_order(60)
    assert torch.cat([rows for rows, *_ in ordered.batches(9)]).squeeze(1).tolist() == list(range(200))
    assert loader.batch_size == 32


def test_skipped_images_have_the_features_of_those_that_stand_in_for_them(tmp_path):
    draw = np.random.default_rng(0)
    for label in "ab":
        (tmp_path / "train" / label).mkdir(parents=True)
        for index in range(6):
            pixels = draw.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "train" / label / f"{index}.png")
    (tmp_path / "train/a/2.png").write_bytes(b"")
    model = network(channels=3, classes=2)
    for kind in (LoaderKind.memory, LoaderKind.stream):
        chosen = DataSettings(
            name="imagefolder",
            root=str(tmp_path),
            batch_size=4,
            image_size=8,
            loader=kind,
            workers=0,
            val=2,
            mean=[0.5],
            std=[0.5],
            on_bad_image=OnBadImage.skip,
        )
        data = build_data(chosen, AugmentSettings(), seed=0, device=CPU, say=list)
        encoded = cached(splits(data), model)
        for name, loader in encoded.items():
            with torch.no_grad():
                expected = model.eval().body(NORMALISE(getattr(data, name).pick(torch.arange(len(loader.labels)))))
            torch.testing.assert_close(loader.pick(torch.arange(len(expected))), expected, rtol=1e-5, atol=1e-5)
        skipped = [entry for loader in encoded.values() for entry in loader.bad_files]
        assert [path[-11:] for path, _ in skipped] == ["train/a/2.png"[-11:]]


# ---- when not ----

CHANGES = [
    ("augment.hflip changes", AugmentSettings(hflip=HflipSettings())),
    ("augment.mixup and augment.cutmix change ", AugmentSettings(mixup=MixupSettings(), cutmix=CutmixSettings())),
    ("augment.resized_crop changes", AugmentSettings(resized_crop=ResizedCropSettings())),
    ("augment.own changes", AugmentSettings(own=OwnSettings(name="mine.pieces:noise"))),
    ("augment.progressive changes", AugmentSettings(progressive=ProgressiveSettings())),
]


@pytest.mark.parametrize(("words", "augment"), CHANGES, ids=[words for words, _ in CHANGES])
def test_what_augments_the_images_is_named(words, augment):
    loaders, model, report = splits(digits()), network(), Report()
    assert cached(loaders, model, settings("auto", augment=augment), report=report) is None
    (line,) = report.lines
    assert line.startswith(f"features are not cached, each epoch runs the encoder: {words}")
    assert line.endswith("; set augment=none")
    with pytest.raises(
        ConfigError, match=rf"^finetune\.cache_features: must be auto or false .*{words}.*; set augment"
    ):
        cached(loaders, model, settings(True, augment=augment))
    assert report.phases == []


def test_only_a_frozen_encoder_is_cached():
    loaders, model, report = splits(digits()), network(), Report()
    for mode in (Mode.none, Mode.B, Mode.C):
        assert cached(loaders, model, settings("auto", mode), report=report) is None
        (fault,) = settings(True, mode).finetune.faults()
        assert fault == ("cache_features", True, f"auto or false with finetune.mode={mode.name}, whose encoder learns")
    assert cached(loaders, model, settings(False), report=report) is None
    assert report.lines == []  # nobody asked for it


def test_crops_of_the_loader_and_learners_outside_the_head_are_reasons():
    train = digits().train
    assert reason_not_to_cache(settings(), train, "head", ["head.weight", "head.bias"]) is None
    reason = reason_not_to_cache(settings(), train, "head", ["aux.1.weight", "head.weight"])
    assert reason.startswith("aux.1.weight outside the head head learns; ")
    reason = reason_not_to_cache(settings(), train, "head", ["header.weight"])
    assert reason.startswith("header.weight outside")
    crops: Any = SimpleNamespace(crops=True)
    assert reason_not_to_cache(settings(), crops, "head", []).startswith("augment.resized_crop changes")


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Flatten(), nn.Linear(64, 10)

    def forward(self, x):
        return self.head(self.body(x)) + self.head(self.body(x))


class Scaled(Twice):
    def forward(self, x):
        return self.head(self.body(x)) * 0.125


class Unused(Twice):
    def forward(self, x):
        return x.flatten(1)[:, :10]


class Pairs(Twice):
    def forward(self, x):
        return self.head(self.body(x)), x


class Rows(Twice):
    def forward(self, x):
        return self.head(self.body(torch.cat([x, x])))


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Twice, "the head head is called twice"),
        (Scaled, "what the network answers is not what its head head does"),
        (Pairs, "what the network answers is not what its head head does"),
        (Unused, "the network does not call its head head"),
        (Rows, "16 rows enter the head head for 8 images"),
    ],
)
def test_a_head_that_does_not_make_the_logits_alone_is_not_cached(kind, words):
    model = kind()
    nn.init.zeros_(model.head.weight)
    nn.init.zeros_(model.head.bias)  # it answers the same, whatever follows
    with pytest.raises(ConfigError, match=words):
        cached(splits(digits()), model)
    assert all(module.training for module in model.modules())
    assert not model.head._forward_pre_hooks
    assert not model.head._forward_hooks


def test_layers_after_the_head_are_found_as_in_squeezenet():
    model = network(nn.Conv2d(16, 10, 1))
    model.body = model.body[:3]
    model.pool = nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    report = Report()
    assert cached(splits(digits()), model, settings("auto"), report=report) is None
    assert "what the network answers is not what its head head does" in report.lines[0]


# ---- memory, progress ----


def test_features_that_do_not_fit_are_not_cached(monkeypatch):
    loaders, model, report = splits(digits()), network(), Report()
    needed = 4 * 144 * sum(len(loader.labels) for loader in loaders.values())
    monkeypatch.setattr(common, "free_memory", lambda device: needed * common.SHARE)
    assert cached(loaders, model) is not None
    monkeypatch.setattr(common, "free_memory", lambda device: (needed - 1) * common.SHARE)
    assert cached(loaders, model, settings("auto"), report=report) is None
    assert "the features of the 20 probe images take 0 MB, more than 1/4 of the free memory" in report.lines[0]
    with pytest.raises(ConfigError, match="the 20 probe images take"):
        cached(loaders, model)
    assert report.phases == []  # known before the encoder has run for long


def test_features_lie_on_the_host_where_the_device_is_full(monkeypatch):
    class Full(common.MemoryBudget):
        def __init__(self, device):
            self.device_bytes, self.host_bytes = 0, 10**9

    monkeypatch.setattr(cached_features, "MemoryBudget", Full)
    loaders, model = splits(digits()), network()
    rows, labels, *_ = next(cached(loaders, model)["val"].batches())
    assert rows.shape == (32, 144)
    assert torch.equal(labels, loaders["val"].labels[:32])


def test_encoding_has_a_bar_and_tells_what_it_did():
    loaders, report = splits(digits()), Report()
    cached(loaders, network(), report=report)
    assert report.phases == [("encoding", 7 + 2 + 1)]
    assert report.images == 200 + 50 + 20
    assert report.lines == [
        "features cached of train 200, val 50, probe 20 images (0 MB): the encoder has run once for each"
    ]


def test_a_signal_ends_the_encoding_after_the_micro_batch_in_hand():
    report, model = Report(), network()
    with pytest.raises(Interrupted) as caught:
        cached(splits(digits()), model, report=report, stop=SimpleNamespace(requested=True, signum=15))
    assert (caught.value.exit_code, report.images) == (143, 32)
    assert model.training


def test_each_image_passes_the_encoder_once(monkeypatch):
    model, seen = network(), []
    model.body.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    loaders = splits(digits())
    encoded = cached(loaders, model)
    tried = cached_features.SAMPLE * len(loaders)
    assert sum(seen) == tried + 200 + 50 + 20
    train(model, encoded["train"], model.head, 30)
    assert sum(seen) == tried + 200 + 50 + 20
    assert isinstance(loaders["train"], MemoryLoader)
