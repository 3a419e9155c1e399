"""Any image size: early strides and pools are relaxed by rule until the last feature map has 4x4 pixels.

The plan is made on the meta device, where a network costs no memory and no arithmetic, and then carried out on the
real one. Networks that only pool, or whose classifier reads a flattened map (AlexNet, VGG), keep their pools and get a
smaller classifier. What no change lets run is fed enlarged images.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import nn

from cnntrain.config.schema.model import Stem
from cnntrain.errors import ConfigError
from cnntrain.models.small_images.relax import Edit, in_words, keeps_pools, relax, shrink_classifier, with_border
from cnntrain.models.small_images.shape_trace import SIZE_FAULTS, Trace, trace
from cnntrain.text import one_line

LAST_MAP = 4  # pixels a side; a ResNet's last map at the 32 pixels of CIFAR, without its stem's two halvings
ROOMY = 448  # pixels; patches of 14, 16 and 32 and windows of 7 fit: what fails here seldom runs at a larger size
# Parameters and buffers of networks whose patches have places, so that another stride would make another network.
_PLACES = ("pos_emb", "position", "attention_bias", "rope", "cls_token", "class_token")


@dataclass
class Fit:
    """What makes a network meet an image size."""

    model: nn.Module  # on the meta device, with the edits
    edits: list[Edit] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    enlarged: int | None = None  # the image size that it is given instead of the data's


@dataclass
class Fitter:
    """How to make a network meet the image size of the data.

    `make(size)` builds it for images of `size` pixels on the current default device, with the right classes and
    channels. `sized` networks are built for one image size; `native` is the size that the network was made for.
    """

    name: str
    stem: Stem
    make: Callable[[int], nn.Module]
    native: int
    sized: bool
    classes: int
    channels: int
    image_size: int
    hint: str = field(default="", init=False)  # how to keep the published network, where that runs

    def fit(self) -> tuple[nn.Module, list[str]]:
        """The network, and a line on each change.

        A network whose images are enlarged is `Sequential(enlarge, net)`, so that its weights are named `net.…`.

        Raises:
            ConfigError: the image size is too small for a network that is not to be changed, or no size helps.
        """
        with torch.device("meta"):
            plan = self._plan()
        on_meta = torch.get_default_device().type == "meta"
        model = plan.model if on_meta else self._apply_edits(plan.edits, plan.enlarged)
        if plan.enlarged:
            enlarge = nn.Upsample(size=(plan.enlarged, plan.enlarged), mode="bilinear")
            model = nn.Sequential(OrderedDict(enlarge=enlarge, net=model))
        return model, plan.notes

    def _plan(self) -> Fit:
        try:
            model = self.make(self.image_size)
        except SIZE_FAULTS as error:
            if self.sized:
                raise self._too_small(one_line(error)) from error
            raise ConfigError(
                f"model.args: {self.name} cannot be built ({one_line(error)}); correct model.args"
            ) from error
        published = self._trace(model)
        self.hint = "" if published.fault else " (model.stem=imagenet keeps the original)"
        rigid = any(word in name for name, _ in _tensors(model) for word in _PLACES)
        if rigid and self.stem is Stem.small:
            raise ConfigError(
                f"model.stem: small relaxes early strides, and those of {self.name} are part of its design; "
                "use model.stem=auto"
            )
        if rigid or self.stem is Stem.imagenet:
            return self._finish(published, Fit(model), may_enlarge=False)
        if self.stem is Stem.auto and published.last_map() >= LAST_MAP:
            return self._finish(published, Fit(model))
        if self.stem is Stem.small:
            return self._small()
        return self._auto(model, published)

    def _auto(self, model: nn.Module, published: Trace) -> Fit:
        """Relax group after group until the last map is large enough; where it never is, keep the best that runs."""
        pools_stay = keeps_pools(self._reference() if published.fault else published)
        steps: list[list[Edit]] = []
        trace, best, best_map = published, 0, published.last_map()
        while best_map < LAST_MAP and (step := relax(trace, pools_stay)):
            for edit in step:
                edit.apply(model)
            steps.append(step)
            trace = self._trace(model)
            if trace.last_map() > best_map:
                best, best_map = len(steps), trace.last_map()
        edits = [edit for step in steps[:best] for edit in step]
        if best < len(steps):
            model = self._apply_edits(edits)
            trace = self._trace(model)
        plan = Fit(model, edits)
        if edits:
            before = f"{published.last_map()}x{published.last_map()}" if published.last_map() else "none"
            plan.notes.append(
                f"stem for {self.image_size}-pixel images: {in_words(steps[:best])}; "
                f"last map {best_map}x{best_map} instead of {before}{self.hint}"
            )
        return self._finish(self._classifier(trace, plan), plan)

    def _small(self) -> Fit:
        """Relax the first two halvings, whatever the image size."""
        model, steps = self.make(self.image_size), []
        trace = self._reference()
        for _ in range(2):
            step = relax(trace, pools_stay=False)
            for edit in step:
                edit.apply(model)
            steps.append(step)
            trace = self._trace(model, self.native)
        edits = [edit for step in steps for edit in step]
        if not edits:
            raise ConfigError(f"model.stem: small relaxes strides, and {self.name} has none; use model.stem=auto")
        plan = Fit(model, edits, [f"small stem: {in_words(steps)}{self.hint}"])
        trace = self._trace(model)
        return self._finish(self._classifier(trace, plan), plan, may_enlarge=False)

    def _classifier(self, trace: Trace, plan: Fit) -> Trace:
        """Give a network that flattens its last map a classifier for a map below 4x4."""
        edits, words = shrink_classifier(trace) if 0 < trace.last_map() < LAST_MAP else ([], "")
        if not edits:
            return trace
        for edit in edits:
            edit.apply(plan.model)
        plan.edits += edits
        plan.notes.append(f"classifier for a last map of {trace.last_map()}x{trace.last_map()}: {words}{self.hint}")
        return self._trace(plan.model)

    def _finish(self, trace: Trace, plan: Fit, *, may_enlarge: bool = True) -> Fit:
        """The plan, if the planned network runs in training mode too; else that of enlarged images."""
        if not trace.fault:
            heads, fault = self._settle(plan.model, self.image_size)
            if not fault:
                plan.edits += heads
                plan.notes += [in_words([[edit]]) for edit in heads]
                return plan
            trace = Trace(fault=fault)
        if not may_enlarge:
            raise self._too_small(trace.fault, plan.edits)
        size = self._next_size([])
        if size is None:
            raise self._never(trace.fault)
        model = self.make(size)
        heads, _ = self._settle(model, size)
        note = f"images enlarged from {self.image_size} to {size} pixels, the smallest that {self.name} runs at"
        return Fit(model, heads, [note, *(in_words([[edit]]) for edit in heads)], size)

    def _settle(self, model: nn.Module, size: int) -> tuple[list[Edit], str]:
        """Try training mode, with borders for convolutions of auxiliary heads that their maps are too small for."""
        edits: list[Edit] = []
        while True:
            trace = self._trace(model, size, training=True)
            last = trace.visits[-1] if trace.visits else None
            if not (trace.fault and last and isinstance(last.layer, nn.Conv2d) and last.lacks_pixels()):
                return edits, trace.fault
            edits.append(Edit(last.path, with_border, f"with a border, as its map has {last.side}x{last.side} pixels"))
            edits[-1].apply(model)

    def _too_small(self, fault: str, edits: list[Edit] | None = None) -> ConfigError:
        size = self._next_size(edits or [])
        if size is None:
            return self._never(fault)
        other = "choose another model" if self.stem is Stem.auto else "model.stem=auto"
        return ConfigError(
            f"data.image_size: {self.image_size} does not suit {self.name} ({fault}), the smallest above it that works "
            f"is {size}; set data.image_size={size} or {other}"
        )

    def _never(self, fault: str) -> ConfigError:
        return ConfigError(
            f"model.args: {self.name} fails at {self.image_size} pixels ({fault}), and at {self._large()[0]} too; "
            "correct model.args or choose another model"
        )

    def _large(self) -> list[int]:
        """Image sizes at which a network should run."""
        return [size for size in (self.native, ROOMY, 2 * self.image_size) if size > self.image_size]

    def _next_size(self, edits: list[Edit]) -> int | None:
        """The smallest image size above the data's that works in both modes; None where no size would help."""
        model = None if self.sized else self._apply_edits(edits)

        def works(size: int) -> bool:
            try:
                built = model or self.make(size)
            except SIZE_FAULTS:
                return False
            return not self._trace(built, size).fault and not self._settle(built, size)[1]

        below, size = self.image_size, next(filter(works, self._large()), None)
        if size is None:
            return None
        if self.sized:  # multiples of a patch or a window
            return next((side for side in range(below + 1, size) if works(side)), size)
        while size - below > 1:
            middle = (below + size) // 2
            below, size = (below, middle) if works(middle) else (middle, size)
        return size

    def _reference(self) -> Trace:
        """The published network on images of the size that it was made for."""
        trace = self._trace(self.make(self.native), self.native)
        if trace.fault:
            raise self._never(trace.fault)
        return trace

    def _apply_edits(self, edits: list[Edit], size: int | None = None) -> nn.Module:
        model = self.make(size or self.image_size)
        for edit in edits:
            edit.apply(model)
        return model

    def _trace(self, model: nn.Module, size: int | None = None, *, training: bool = False) -> Trace:
        sizes = {"channels": self.channels, "classes": self.classes, "image_size": size or self.image_size}
        return trace(model, **sizes, training=training)


def _tensors(model: nn.Module) -> list[tuple[str, torch.Tensor]]:
    return [*model.named_parameters(), *model.named_buffers()]
