"""Features instead of images: a frozen encoder runs once per image, and each epoch trains the head on what it answered.

This is where linear probing gets its speed from. It is exact where nothing but the head changes between two epochs.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager

import torch
from torch import Tensor, nn

from cnntrain.config.schema.finetune import Mode
from cnntrain.config.schema.settings import Settings
from cnntrain.config.schema.trainer import Precision
from cnntrain.data.common import SHARE, MemoryBudget, gigabytes
from cnntrain.data.loaders import Batch, Loader, gather
from cnntrain.errors import ConfigError, Interrupted
from cnntrain.models.name_patterns import is_below
from cnntrain.runtime.precision import autocast
from cnntrain.runtime.reporter import Reporter
from cnntrain.runtime.signals import StopFlag

SAMPLE = 8  # images of each split that are tried first


class FeatureLoader(Loader):
    """Stands for a loader of images and yields their features: the same images in the same micro-batches and order.

    Features keep the image size that they were made at.

    Args:
        source: the loader of the images.
        features: (N, ...) in the order of its labels, on the device or on the host.
    """

    def __init__(self, source: Loader, features: Tensor) -> None:
        super().__init__(source.sampler, source.device, source.decoder)
        self._features, self._labels = features, source.labels.to(features.device)

    def batches(self, epoch: int = 0, start: int = 0) -> Generator[Batch, None, None]:
        """Yield features (N, D), or (N, D, H, W) for a head that pools, and int64 labels (N,) on the device."""
        order = self.sampler.order(epoch)
        rows = order.to(self._features.device)
        for part, total in self.sampler.parts(start):
            features, labels = self.pick(rows[part]), gather(self._labels, rows[part], self.device)
            yield Batch(features, labels, order[part], total)

    def pick(self, indices: Tensor) -> Tensor:
        """Features of some images, by int64 indices in the order of `labels`, on the device."""
        return gather(self._features, indices.to(self._features.device), self.device)


def reason_not_to_cache(settings: Settings, train: Loader, head: str, learners: Iterable[str]) -> str | None:
    """The reason why what enters the head changes from epoch to epoch, and what to switch off; None: it does not.

    Args:
        settings: of the run, in mode A.
        train: the loader of the training images.
        head: the path of the head in the network.
        learners: names of all parameters that ever learn.
    """
    if pieces := settings.augment.pieces or ["resized_crop"] * train.crops:
        names = " and ".join(f"augment.{piece}" for piece in pieces)
        change = "changes" if len(pieces) == 1 else "change"
        return f"{names} {change} the images in every epoch; set augment=none"
    if outside := [name for name in learners if not is_below(name, [head])]:
        return f"{outside[0]} outside the head {head} learns; name it in finetune.freeze, or set model.aux_weight=0"
    return None


def cache(
    settings: Settings,
    model: nn.Module,
    head: str,
    loaders: Mapping[str, Loader],
    *,
    learners: Iterable[str],
    normalize: Callable[[Tensor], Tensor],
    device: torch.device,
    precision: Precision,
    report: Reporter,
    stop: StopFlag,
) -> dict[str, FeatureLoader] | None:
    """Encode the images of all splits once; None where the images themselves must go through the network.

    `finetune.cache_features=auto` then says why, in mode A.

    Args:
        settings: of the run.
        model: on the device; its weights and modes stay as they are.
        head: the path of the head in it.
        loaders: of the images, by the name of the split; `train` must be among them.
        learners: names of all parameters that ever learn.
        normalize: the evaluation transform of a uint8 micro-batch.
        device, precision: those of the training.
        report: takes the progress and what there is to say.
        stop: read after each micro-batch.

    Raises:
        ConfigError: `finetune.cache_features=true`, and it cannot be.
        Interrupted: a signal asked for the end.
    """
    choice = settings.finetune.cache_features
    if choice is False or settings.finetune.mode is not Mode.A:
        return None
    try:
        if reason := reason_not_to_cache(settings, loaders["train"], head, learners):
            raise Refused(reason)
        encoder = Encoder(model, head, normalize, device, precision)
        with _eval_mode(model), torch.no_grad():  # not inference_mode: a loader may decode at first use and keep it
            stores = _reserve(encoder, loaders, device)
            _fill(encoder, loaders, stores, report, stop)
    except Refused as refused:
        if choice is True:
            raise ConfigError(f"finetune.cache_features: must be auto or false (given true): {refused}") from None
        report.say(f"features are not cached, each epoch runs the encoder: {refused}")
        return None
    finally:
        report.end_phase()
    feature_loaders = {name: FeatureLoader(loaders[name], store) for name, store in stores.items()}
    size = sum(store.nbytes for store in stores.values())
    parts = ", ".join(f"{name} {len(store):,}" for name, store in stores.items())
    report.say(f"features cached of {parts} images ({gigabytes(size)}): the encoder has run once for each")
    return feature_loaders


class Refused(Exception):
    """Why features are not cached, and what to do about it."""


class Encoder:
    """All of a network that lies before its head, in the precision of the training."""

    def __init__(
        self,
        model: nn.Module,
        head: str,
        normalize: Callable[[Tensor], Tensor],
        device: torch.device,
        precision: Precision,
    ) -> None:
        self._model, self._path, self._head = model, head, model.get_submodule(head)
        self._normalize, self._device, self._precision = normalize, device, precision

    def __call__(self, images: Tensor) -> Tensor:
        """What enters the head, (N, ...), of uint8 images."""
        return self._run(images)[0]

    def try_out(self, images: Tensor) -> Tensor:
        """The same, and make sure that the network's answer is the head's, and that nothing else enters it.

        The head's answer is replaced by marks on its way, as that of a head of zeros would tell nothing: where they
        come out unchanged, so does the head's answer.

        Raises:
            Refused: it is not.
        """
        marks = torch.empty(0)

        def replace(module: nn.Module, inputs: tuple[object, ...], answer: Tensor) -> Tensor:
            nonlocal marks
            marks = torch.linspace(-1000, 1000, answer.numel(), dtype=answer.dtype, device=answer.device)
            marks = marks.view(answer.shape)
            return marks

        hook = self._head.register_forward_hook(replace)
        try:
            features, logits = self._run(images)
        finally:
            hook.remove()
        if not isinstance(logits, Tensor) or logits.shape != marks.shape or not logits.equal(marks):
            raise Refused(f"what the network answers is not what its head {self._path} does")
        if len(features) != len(images):
            raise Refused(f"{len(features)} rows enter the head {self._path} for {len(images)} images")
        return features

    def _run(self, images: Tensor) -> tuple[Tensor, object]:
        features: list[Tensor] = []

        def keep(module: nn.Module, inputs: tuple[object, ...], keywords: dict[str, object]) -> None:
            if len(inputs) != 1 or keywords or not isinstance(inputs[0], Tensor) or features:
                raise Refused(f"the head {self._path} is called twice, or with more than one tensor")
            features.append(inputs[0].clone())  # a head may change its input in place

        hook = self._head.register_forward_pre_hook(keep, with_kwargs=True)
        try:
            with autocast(self._precision, self._device):
                answer = self._model(self._normalize(images))
        finally:
            hook.remove()
        if not features:
            raise Refused(f"the network does not call its head {self._path}; set finetune.head")
        return features[0], answer


@contextmanager
def _eval_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, and afterwards that of before, module by module."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _reserve(encoder: Encoder, loaders: Mapping[str, Loader], device: torch.device) -> dict[str, Tensor]:
    """Room for the features of each split, (N, ...), empty, on the device or on the host.

    Raises:
        Refused: there is none.
    """
    budget, stores = MemoryBudget(device), {}
    for name, loader in loaders.items():
        count = len(loader.labels)
        sample = encoder.try_out(loader.pick(torch.arange(min(count, SAMPLE))))
        size = count * sample[0].nbytes
        place = budget.take(size)
        if place is None:
            demand = f"the features of the {count:,} {name} images take {gigabytes(size)}"
            raise Refused(f"{demand}, more than 1/{SHARE} of the free memory; set data.limit, or free some")
        home = device if place == "device" else torch.device("cpu")
        stores[name] = torch.empty((count, *sample.shape[1:]), dtype=sample.dtype, device=home)
    return stores


def _fill(
    encoder: Encoder, loaders: Mapping[str, Loader], stores: Mapping[str, Tensor], report: Reporter, stop: StopFlag
) -> None:
    full_loaders = {name: loader.in_order() for name, loader in loaders.items()}
    report.validating(sum(map(len, full_loaders.values())), "encoding")
    for name, loader in full_loaders.items():
        start = 0
        with closing(loader.batches()) as batches:
            for batch in batches:
                count = len(batch.labels)
                stores[name][start : start + count] = encoder(batch.images)
                start += count
                report.advance(count)
                if stop.requested:
                    raise Interrupted(stop.signum or 2, "stopped while the images were encoded")
