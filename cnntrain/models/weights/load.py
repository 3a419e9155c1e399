"""Weights to start from, and how they meet the tensors of a network."""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cnntrain.config.paths import expand_path
from cnntrain.config.schema.model import ModelSettings
from cnntrain.errors import CheckpointError
from cnntrain.models.name_patterns import is_below, require
from cnntrain.models.weights.files import AVERAGED, content_of, is_run, state_dict_of
from cnntrain.models.weights.pretrained import library_tensors
from cnntrain.text import few, printable

Say = Callable[[str], None]

# What older torchvision called a tensor. Its published files of DenseNet and ViT still do.
_OLD_NAMES = (
    (re.compile(r"(denselayer\d+\.(?:norm|conv))([12]\.)"), r"\1.\2"),
    (re.compile(r"\.mlp\.0\."), ".mlp.linear_1."),
    (re.compile(r"\.mlp\.3\."), ".mlp.linear_2."),
)
ENLARGED = "net."  # before the names of a network whose images are enlarged, see models/small_images/fit.py
_COMPILED = "_orig_mod."  # before the names of a module that torch.compile made
FEW = 4  # tensors of no known kind that a file may hold beside a network
_HEADS = re.compile(r"^(?:aux|.*(?:head|fc|classif|logits|proj|prototype|last_linear))", re.IGNORECASE)
# What a network computes anew, and what a profiler leaves behind.
_DERIVED = re.compile(r"(?:running_(?:mean|var)|attn_mask|total_ops|total_params)$")
_COUNTER = "num_batches_tracked"  # of batch norms since torch 0.4.1, and of no use to a fixed momentum


@dataclass
class Weights:
    """Tensors under the names that their file gives them.

    Attributes:
        source: where they are from, in words: a path as the user wrote it, or "torchvision's IMAGENET1K_V2".
        classes: those that a run of ours was trained on, in order.
        key: the setting that asked for them.
    """

    tensors: dict[str, Tensor]
    source: str
    classes: list[str] | None = None
    key: str = "model.weights"


def read_weights(settings: ModelSettings, say: Say) -> Weights | None:
    """The weights that the settings name; None where they name none.

    Args:
        say: takes a line on a download, and on a choice between several networks in one file.

    Raises:
        CheckpointError: no such file, no weights in it, or damaged.
        UnsafeError: it holds code.
        ConfigError: the library has no weights for this network, or they cannot be downloaded.
    """
    if settings.weights is None:
        return Weights(*library_tensors(settings, say), key="model.pretrained") if settings.pretrained else None
    path = expand_path(settings.weights)
    content = content_of(path)
    if not is_run(content):
        return Weights(state_dict_of(content, path, say), printable(settings.weights))
    about, ema = content["about"], content.get("ema")
    model = about["config"].get("model")
    words = str(model.get("name") if isinstance(model, dict) else "a run") + (", EMA weights" if ema else "")
    tensors = ema["model"] if ema else content["model"]
    return Weights(tensors, f"{printable(settings.weights)} ({words})", list(about["classes"]))


def load_weights_into(
    model: nn.Module,
    weights: Weights,
    *,
    new: Sequence[str],
    allow_missing: Sequence[str],
    allow_unused: Sequence[str] = (),
    frozen: Collection[str] = (),
) -> list[str]:
    """Fill a network, in place, and answer what to say about it.

    Names are matched without the prefix that hides them (`module.`, `encoder.`), which is the one that lets most names
    fit: names that fit as they are stay so. Values take the dtype and device of the network's.

    Args:
        new: paths of modules that stay as initialised.
        allow_missing: patterns of other tensors that may, where the weights lack them or have another shape.
        allow_unused: patterns of tensors in the file that may find no place, see _refuse_other_network.
        frozen: parameters that never learn.

    Raises:
        CheckpointError: a tensor is missing or of another shape, the file is of a larger network, or nothing fits; the
            network is as it was.
        ConfigError: a pattern that matches no tensor.
    """
    own = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    match = _match(list(own), weights.tensors)
    allowed = require("model.allow_missing", allow_missing, list(own), "tensor of the network")
    fresh = {name: None for name in own if is_below(name, new)}
    loaded: dict[str, Tensor] = {}
    faults: dict[str, str] = {}
    summed: list[str] = []
    for name in (name for name in own if name not in fresh):
        if name not in match.files:
            if not name.endswith(_COUNTER):
                faults[name] = f"{name} is missing"
            continue
        value = weights.tensors[match.files[name]]
        if _for_grey(own[name], value):
            value = value.to(own[name].dtype).sum(1, keepdim=True)
            summed.append(name)
        if fault := _unlike(own[name], value):
            faults[name] = f"{name} is {fault}"
        else:
            loaded[name] = value
    counted = [name for name in own if not name.endswith(_COUNTER) or name in loaded]
    wrong = {name: fault for name, fault in faults.items() if name not in allowed}
    kernels = any(_other_kernel(own[name], weights.tensors[match.files[name]]) for name in wrong if name in match.files)
    _refuse(weights, wrong, loaded, len(counted), kernels=kernels)
    unused = match.unused(weights.tensors, new)
    permitted = require("model.allow_unused", allow_unused, list(weights.tensors), "tensor of the file")
    _refuse_other_network(weights, [name for name in unused if name not in permitted], match, own)
    with torch.no_grad():
        for name, value in loaded.items():
            own[name].copy_(value)
    lines = [f"loaded {len(loaded)}/{len(counted)} tensors of {weights.source}"]
    if renewed := [name for name in fresh if name in counted]:
        lines[0] += f"; new: {few(renewed)}"
    lines += match.lines()
    lines += [f"{name} summed over its input channels, for grey images" for name in summed]
    if faults:
        lines.append(f"as initialised, by model.allow_missing: {few(list(faults))}")
    if stuck := [name for name in faults if name in frozen]:
        lines.append(
            f"warning: {few(stuck)} stays as initialised and never learns; let it learn, or give weights that have it"
        )
    if unused:
        lines.append(f"unused: {few(unused)}")
    return lines


@dataclass
class _Match:
    """Which tensor of a file is which of a network.

    Attributes:
        files: names in the file by those in the network.
        prefix: of the names in the file; `inner` of those in the network.
        rivals: other prefixes that let as many names fit.
    """

    files: dict[str, str]
    prefix: str
    inner: str
    rivals: list[str]

    def lines(self) -> list[str]:
        lines = [f"names of the file without their {self.prefix!r}"] if self.prefix else []
        if self.rivals:
            lines.append(f"{few([repr(one) for one in self.rivals])} would have fitted as well")
        return lines

    def unused(self, names: Collection[str], new: Sequence[str]) -> list[str]:
        """Names in the file that no tensor took, but for those of a head that is made new."""
        used = set(self.files.values())
        return [name for name in names if name not in used and not is_below(self.bare(name), new)]

    def bare(self, name: str) -> str:
        """What the network would call a tensor of the file."""
        return self.inner + name.replace(_COMPILED, "").removeprefix(self.prefix)


def _match(own: list[str], names: Collection[str]) -> _Match:
    """Match by the prefix under which most names fit; that none is needed wins over any that does no better."""
    inner = ENLARGED if all(name.startswith(ENLARGED) for name in own) else ""
    compiled = any(_COMPILED in name for name in own)
    by_plain_name = {name if compiled else name.replace(_COMPILED, ""): name for name in names}
    spelled = {spelling: name for name in own for spelling in _spellings(name.removeprefix(inner))}
    fits: Counter[str] = Counter()
    for name in by_plain_name:
        parts = name.split(".")
        for depth in range(len(parts)):
            if ".".join(parts[depth:]) in spelled:
                fits["".join(f"{part}." for part in parts[:depth])] += 1
    prefix = max(fits, key=lambda one: (fits[one], bool(AVERAGED.search(one)), -len(one)), default="")
    if fits[prefix] == fits[""]:
        prefix = ""
    files = {
        name: by_plain_name[prefix + spelling]
        for spelling, name in spelled.items()
        if prefix + spelling in by_plain_name
    }
    return _Match(files, prefix, inner, [one for one in fits if one != prefix and fits[one] == fits[prefix]])


def _spellings(name: str) -> Iterator[str]:
    """A name, after the one that older torchvision had for it."""
    old = name
    for pattern, was in _OLD_NAMES:
        old = pattern.sub(was, old)
    yield old
    yield name


def _for_grey(own: Tensor, loaded: Tensor) -> bool:
    """Whether a kernel for colour images meets one for grey ones."""
    return loaded.dim() == 4 and loaded.shape[1] == 3 and own.shape == (len(loaded), 1, *loaded.shape[2:])


def _other_kernel(own: Tensor, loaded: Tensor) -> bool:
    return own.dim() == loaded.dim() == 4 and own.shape[2:] != loaded.shape[2:]


def _unlike(own: Tensor, loaded: Tensor) -> str:
    """Why one tensor cannot take the values of another; empty where it can."""
    if own.shape != loaded.shape:
        return f"{tuple(loaded.shape)} in the file and {tuple(own.shape)} in the network"
    if own.is_floating_point() != loaded.is_floating_point():
        return f"{loaded.dtype} in the file and {own.dtype} in the network"
    if loaded.is_floating_point() and not loaded.isfinite().all():
        return "NaN or infinite in places"
    return ""


def _refuse(weights: Weights, wrong: Mapping[str, str], loaded: Collection[str], count: int, *, kernels: bool) -> None:
    what = f"{weights.key}: {weights.source} does not fit the network"
    if all(name.endswith(_COUNTER) for name in loaded):
        names = few(list(weights.tensors))
        raise CheckpointError(
            f"{what}, none of its tensors does ({names}); give weights of this network, or model.name"
        )
    if wrong:
        # A stem relaxed for small images has smaller kernels than the published one.
        stem = "keep the published stem by model.stem=imagenet, " if kernels else ""
        raise CheckpointError(
            f"{what} in {len(wrong)} of {count} tensors ({few(list(wrong.values()))}); correct model.name, model.args "
            f"or data.image_size, {stem}or let them start as initialised: 'model.allow_missing=[{_patterns(wrong)}]'"
        )


def _refuse_other_network(weights: Weights, unused: Sequence[str], match: _Match, own: Mapping[str, Tensor]) -> None:
    """A file with more layers than the network is that of another one, whose first layers say little on their own.

    Heads, auxiliary classifiers and a few tensors (a mask token) are no layers, nor is what lies beside the prefix: the
    rest of a model in two parts. Statistics without a weight are no sign either: the norm may be another, model.norm.

    Raises:
        CheckpointError: a tensor lies in a part that the network has, or more than a few lie in others.
    """
    stray = {
        name: part
        for name in unused
        if name.replace(_COMPILED, "").startswith(match.prefix)
        and not _DERIVED.search(name)
        and weights.tensors[name].is_floating_point()
        and not _HEADS.search(part := _part(match.bare(name)))
    }
    if len(stray) <= FEW and not {*stray.values()} & {_part(name) for name in own}:
        return
    raise CheckpointError(
        f"{weights.key}: {weights.source} is of another network, {len(stray)} of its {len(weights.tensors)} tensors "
        f"have no place in this one ({few(list(stray))}); correct model.name or model.args, or leave them out: "
        f"'model.allow_unused=[{_patterns(stray)}]'"
    )


def _patterns(names: Collection[str]) -> str:
    """What the user may type to name these tensors: their modules, or, of many, the outermost of them."""
    modules = dict.fromkeys(name.rpartition(".")[0] or name for name in names)
    return ",".join(modules if len(modules) < 4 else dict.fromkeys(name.partition(".")[0] for name in names))


def _part(name: str) -> str:
    """The outermost module that a tensor of the network lies in."""
    return name.removeprefix(ENLARGED).partition(".")[0]
