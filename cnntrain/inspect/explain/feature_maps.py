"""Which layers of a network give feature maps, found by running it, and those maps."""

import difflib
import fnmatch
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cnntrain.errors import ConfigError
from cnntrain.inspect.explain.subject import NotApplicable

MOST_STAGES = 5


@dataclass(frozen=True)
class Layer:
    """A layer that gives feature maps (N, channels, height, width) of more than one pixel.

    Attributes:
        convolutions: how many had run when this layer was done.
        is_pool: a pooling, or a block that ends in one.
    """

    name: str
    kind: str
    channels: int
    height: int
    width: int
    convolutions: int
    is_pool: bool

    @property
    def size(self) -> tuple[int, int]:
        return self.height, self.width

    @property
    def depth(self) -> int:
        return self.name.count(".")

    def describe(self) -> str:
        """`layer1.0.conv1 (Conv2d): 64 maps of 32x32`."""
        return f"{self.name} ({self.kind}): {self.channels:,} maps of {self.height}x{self.width}"


def map_layers(model: nn.Module, inputs: Tensor) -> list[Layer]:
    """The layers with feature maps, in the order in which they are done; a block is done after what lies in it.

    What comes before the first convolution is no feature map (such as an enlarged image), nor is a tensor that has its
    channels last (inside a ConvNeXt, or all along a Swin transformer).

    Args:
        inputs: float32 (N, C, S, S), as the model takes them; one image is run.

    Raises:
        NotApplicable: there are none.
    """
    found: dict[str, tuple[nn.Module, Tensor, int]] = {}
    last_shapes: set[tuple[int, ...]] = set()  # of tensors with their channels last
    convolutions = 0

    def look(name: str, module: nn.Module, output: Tensor) -> None:
        nonlocal convolutions
        convolutions += isinstance(module, nn.Conv2d)
        if _is_channels_last(module, output):
            last_shapes.add(tuple(output.shape))
        if output.dim() == 4 and convolutions:
            found.pop(name, None)  # what runs more than once counts where it ends
            found[name] = (module, output, convolutions)

    with listening(model, dict(model.named_modules()), look), torch.no_grad():
        model(inputs[:1])
    pooled = [output for module, output, _ in found.values() if _is_pool(module)]
    layers = [
        Layer(name, type(module).__name__, *_sizes(output), count, any(output is pool for pool in pooled))
        for name, (module, output, count) in found.items()
        if tuple(output.shape) not in last_shapes and output.shape[2] * output.shape[3] > 1
    ]
    if not layers:
        raise NotApplicable("no convolution gives a feature map")
    return layers


def _is_channels_last(module: nn.Module, output: Tensor) -> bool:
    size = getattr(module, "normalized_shape", None) or getattr(module, "out_features", None)
    width = size[-1] if isinstance(size, tuple) else size
    return output.dim() == 4 and output.shape[3] == width != output.shape[1]


def _sizes(maps: Tensor) -> tuple[int, int, int]:
    _, channels, height, width = maps.shape
    return channels, height, width


def _is_pool(module: nn.Module) -> bool:
    return "pool" in type(module).__name__.lower()


@contextmanager
def listening(
    model: nn.Module, modules: dict[str, nn.Module], hear: Callable[[str, nn.Module, Tensor], Any]
) -> Iterator[None]:
    """Call `hear(name, module, output)` whenever one of the modules gives a tensor."""

    def hook(name: str) -> Callable[..., None]:
        def call(module: nn.Module, _: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                hear(name, module, output)

        return call

    handles = [module.register_forward_hook(hook(name)) for name, module in modules.items() if module is not model]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def maps_of(model: nn.Module, inputs: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    """The feature maps of the named layers, as they are when the layer is done, each (N, channels, H, W)."""
    maps: dict[str, Tensor] = {}

    def keep(name: str, _: nn.Module, output: Tensor) -> None:
        maps[name] = output.detach().clone()  # an activation behind it may work in place

    with listening(model, {name: model.get_submodule(name) for name in names}, keep), torch.no_grad():
        model(inputs)
    return maps


# ---- choosing ----


def last_map(layers: Sequence[Layer]) -> Layer:
    """The last feature map before the head: poolings at its end do not count, as they only blur it."""
    return next((layer for layer in reversed(layers) if not layer.is_pool), layers[-1])


def first_map(layers: Sequence[Layer]) -> Layer:
    """The answer of the first convolution, with the norm and activation that follow it."""
    own = layers[0].convolutions, layers[0].size
    same = [layer for layer in layers if (layer.convolutions, layer.size) == own and not layer.is_pool]
    return _last_outermost(same)


def _last_outermost(layers: Sequence[Layer]) -> Layer:
    depth = min(layer.depth for layer in layers)
    return next(layer for layer in reversed(layers) if layer.depth == depth)


def stages(layers: Sequence[Layer]) -> list[Layer]:
    """The first map and the last one of each size, five at most.

    Of each size the outermost blocks are looked at: what lies deep in the next block may still have that size.
    """
    first, last = first_map(layers), last_map(layers)
    sizes: dict[tuple[int, int], list[Layer]] = {}
    for layer in layers:
        if not layer.is_pool and (layer.convolutions > first.convolutions or layer.size == last.size != first.size):
            sizes.setdefault(layer.size, []).append(layer)
    ends = [_last_outermost(found) for found in sizes.values()]
    usual = min((layer.depth for layer in ends), default=0) + 2  # deeper down, a size is one of an attention's workings
    chosen = sorted({first, *(layer for layer in ends if layer.depth <= usual)}, key=layers.index)
    if len(chosen) > MOST_STAGES:
        step = (len(chosen) - 1) / (MOST_STAGES - 1)
        chosen = [chosen[round(index * step)] for index in range(MOST_STAGES)]
    return chosen


def choose_layers(words_of_user: Sequence[str], layers: Sequence[Layer], model: nn.Module) -> list[Layer]:
    """The layers that names, patterns and the words `first`, `last` and `stages` mean, in the order of the network.

    Raises:
        ConfigError: a word that means none.
    """
    words = {"first": [first_map(layers)], "last": [last_map(layers)], "stages": stages(layers)}
    names, chosen = [layer.name for layer in layers], set[str]()
    for word in words_of_user:
        if word in words:  # before names: the ResNets for CIFAR have a block `stages`, which is `last` too
            chosen |= {layer.name for layer in words[word]}
        elif word in names:
            chosen.add(word)
        elif found := set(fnmatch.filter(names, word)):
            chosen |= found
        else:
            raise ConfigError(_no_layer(word, layers, model))
    return [layer for layer in layers if layer.name in chosen]


def _no_layer(word: str, layers: Sequence[Layer], model: nn.Module) -> str:
    others = [name for name, _ in model.named_modules() if fnmatch.fnmatchcase(name, word)]
    names = [layer.name for layer in layers]
    if others:
        return f"layers: {others[0]} gives no feature map; take one up to {names[-1]}, or first, last or stages"
    close = difflib.get_close_matches(word, [*names, "first", "last", "stages"], n=1)
    advice = f"did you mean {close[0]}? " if close else ""
    return f"layers: no layer {word}; {advice}`cnntrain summary` lists the layers of a network"
