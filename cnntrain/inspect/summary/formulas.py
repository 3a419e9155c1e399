"""The sums and products that make a layer's numbers, as the lectures write them."""

from collections import Counter

from torch import nn
from torch.nn.modules.conv import _ConvNd

from cnntrain.inspect.summary.trace import Look, Operation


def parameter_sum(module: nn.Module, own: dict[str, nn.Parameter]) -> str:
    """The count as the sum that makes it: `(5·5·6+1)·16` for a convolution with bias, `2·64` for a norm."""
    if isinstance(module, (_ConvNd, nn.Linear)) and "weight" in own and own.keys() <= {"weight", "bias"}:
        if isinstance(module, nn.Linear):
            inputs, outputs = [module.in_features], module.out_features
        else:
            inputs, outputs = [*module.kernel_size, module.in_channels // module.groups], module.out_channels
        if "bias" in own:
            return f"({_times(inputs)}+1)·{outputs}"
        return _times([*inputs, outputs])
    shapes = Counter(tuple(parameter.shape) for parameter in own.values())
    return " + ".join(_times([count] * (count > 1) + list(shape)) for shape, count in shapes.items())


def mac_product(operation: Operation) -> str:
    """The multiply-adds of an operation as the product that makes them: `5·5·6·16·10·10`."""
    if operation.name == "convolution":
        _, (outputs, inputs, *kernel), *_ = operation.inputs
        places = operation.inputs[0] if operation.look and operation.look.is_transposed else operation.output
        return _times([*kernel, inputs, outputs, *places[2:]])
    *_, (*_, inputs, outputs) = operation.inputs
    rest = operation.macs // (inputs * outputs)
    return _times([inputs, outputs] + [rest] * (rest != 1))


def _times(factors: list[int]) -> str:
    return "·".join(map(str, factors)) or "1"


def size_formulas(look: Look) -> list[str]:
    """The lectures' H' = ⌊(H + 2P - D(F-1) - 1)/S⌋ + 1 with its numbers; one for W' only where it differs."""
    height, width = (_side_formula(look, axis) for axis in (0, 1))
    return [f"H' = {height}"] if height == width else [f"H' = {height}", f"W' = {width}"]


def _side_formula(look: Look, axis: int) -> str:
    window = look.window
    before, after, stride = look.before[axis], look.after[axis], window.stride[axis]
    first, last = window.borders[axis]
    reach = f"{window.dilation[axis]}·({window.kernel[axis]}-1)"
    if look.is_transposed:
        return f"({before}-1)·{stride} - 2·{first} + {reach} + {look.extra[axis]} + 1 = {after}"
    borders = f"2·{first}" if first == last else f"{first} + {last}"
    left, right = "⌈⌉" if look.ceil else "⌊⌋"
    text = f"{left}({before} + {borders} - {reach} - 1)/{stride}{right} + 1"
    span = before + first + last - window.dilation[axis] * (window.kernel[axis] - 1) - 1
    if look.ceil and -(-span // stride) + 1 > after:
        text += " - 1"  # the last window would lie in the padding alone
    return f"{text} = {after}"
