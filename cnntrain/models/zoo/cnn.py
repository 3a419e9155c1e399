"""The network that is described in YAML, whose keys are in `config/schema/cnn.py`.

[[CONV -> NORM -> ACT -> DROP] * N -> POOL] * M -> [FC -> ACT -> DROP] * K -> FC
"""

from torch import Tensor, nn

from cnntrain.config.schema.cnn import Block, CnnArgs
from cnntrain.errors import ConfigError
from cnntrain.models.drop import DropBlock2d, DropConnectLinear, DropPath
from cnntrain.models.layers import activation, chain, convolution, initialise, norm2d, pool2d
from cnntrain.models.map_sizes import (
    Misfit,
    Window,
    convolution_window,
    last_size,
    next_size,
    pool_window,
    shortcut_window,
)


def build_cnn(args: CnnArgs, *, classes: int, channels: int, image_size: int) -> nn.Sequential:
    """The network that `args`, which must be without faults, describe: its parts are `blocks` and `head`.

    Raises:
        ConfigError: a block that does not fit the maps that enter it.
    """
    layout = args.layout()
    try:
        height, width = last_size(layout, channels, image_size)
    except Misfit as misfit:
        advice = misfit.advice
        if misfit.size and (smallest := next_size(layout, channels, image_size)):
            advice = f"the smallest image size that works is {smallest}: set data.image_size={smallest}, or {advice}"
        raise ConfigError(f"model.args.blocks[{misfit.block}]: {misfit.what}; {advice}") from misfit
    entering = [channels, *(block.filters for block in layout)]
    blocks = nn.Sequential(*map(_block, layout, entering))
    model = chain({"blocks": blocks, "head": _head(args, entering[-1] * height * width, classes)})
    initialise(model, args.init, args.init_std)
    return model


class Residual(nn.Module):
    """shortcut(x) + drop_path(branch(x)) (arXiv 1512.03385); the shapes of both must be the same."""

    def __init__(self, branch: nn.Module, shortcut: nn.Module, drop_path: nn.Module) -> None:
        super().__init__()
        self.branch = branch
        self.shortcut = shortcut
        self.drop_path = drop_path

    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = self.shortcut(x) + self.drop_path(self.branch(x))
        return added


def _block(block: Block, channels: int) -> nn.Sequential:
    """The layers of a block. The sum of a residual one stands before its last activation."""
    layers: dict[str, nn.Module] = {}
    entering = channels
    for number in range(1, block.repeat + 1):
        window = convolution_window(block, first=number == 1)
        layers |= _convolution(block, str(number), entering, window)
        entering = block.filters
        if block.residual and number == block.repeat:
            drop_path = DropPath(block.drop_path) if block.drop_path else nn.Identity()
            layers = {"residual": Residual(chain(layers), _shortcut(block, channels), drop_path)}
        layers |= _activation(block, f"act{number}") | _drops(block, str(number))
    return chain(layers | _pool(block))


def _convolution(block: Block, number: str, channels: int, window: Window) -> dict[str, nn.Module]:
    conv = convolution(
        block.conv,
        channels,
        block.filters,
        window,
        padding_mode=block.padding_mode,
        groups=block.groups,
        bias=_has_bias(block),
        drop_connect=block.drop_connect,
    )
    return {f"conv{number}": conv} | _norm(block, f"norm{number}")


def _shortcut(block: Block, channels: int) -> nn.Module:
    """The block's input, through a 1x1 convolution where its shape would not fit (option B of arXiv 1512.03385)."""
    window = shortcut_window(block, channels)
    if window is None:
        return nn.Identity()
    conv = convolution("full", channels, block.filters, window, bias=_has_bias(block))
    return chain({"conv": conv} | _norm(block, "norm"))


def _pool(block: Block) -> dict[str, nn.Module]:
    window = pool_window(block)
    if block.pool == "none":
        return {}
    if block.pool == "stride":  # as in arXiv 1412.6806
        conv = convolution("full", block.filters, block.filters, window, bias=_has_bias(block))
        return {"pool": conv} | _norm(block, "pool_norm") | _activation(block, "pool_act")
    return {"pool": pool2d(block.pool, window, block.pool_weights)}


def _has_bias(block: Block) -> bool:
    return block.norm == "none" if block.bias is None else block.bias


def _norm(block: Block, name: str) -> dict[str, nn.Module]:
    return {} if block.norm == "none" else {name: norm2d(block.norm, block.filters)}


def _activation(block: Block, name: str) -> dict[str, nn.Module]:
    return {} if block.activation == "none" else {name: activation(block.activation)}


def _drops(block: Block, number: str) -> dict[str, nn.Module]:
    layers: dict[str, nn.Module] = {
        "drop_unit": nn.Dropout(block.drop_unit),
        "drop_channel": nn.Dropout2d(block.drop_channel),
        "drop_block": DropBlock2d(block.drop_block, block.drop_block_size),
    }
    return {name + number: layer for name, layer in layers.items() if getattr(block, name)}


def _head(args: CnnArgs, features: int, classes: int) -> nn.Sequential:
    """The linear layers; without hidden ones, the dropout stands before the only one."""
    layers: dict[str, nn.Module] = {"flatten": nn.Flatten()}
    if args.dropout and not args.hidden:
        layers["drop"] = nn.Dropout(args.dropout)
    kind = args.hidden_activation or args.activation
    rate = args.hidden_drop_connect
    for number, units in enumerate(args.hidden, start=1):
        layers[f"fc{number}"] = DropConnectLinear(features, units, p=rate) if rate else nn.Linear(features, units)
        if kind != "none":
            layers[f"act{number}"] = activation(kind)
        if args.dropout:
            layers[f"drop{number}"] = nn.Dropout(args.dropout)
        features = units
    return chain(layers | {f"fc{len(args.hidden) + 1}": nn.Linear(features, classes)})
