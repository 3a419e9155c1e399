"""The encoder of a network in parts, from the images up: blocks, and the stages that they form.

A part is a list of module paths, each of which stands for the parameters of that module itself.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from cnntrain.models.head import unwrap
from cnntrain.models.name_patterns import is_below
from cnntrain.models.small_images.shape_trace import largest

MOST_STAGES = 10  # where timm's table knows no stages, its coarse groups are blocks, and more than these
FEWEST_STAGES = 3
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_POOLS = (nn.MaxPool2d, nn.AvgPool2d)
Part = list[str]


@dataclass
class Block:
    """Modules that belong together, and what they do to the size of the map.

    Attributes:
        paths: in module order.
        layers: how many of them hold a matrix or a kernel; 0: norms, activations, pools and the like.
        starts: the map is halved within it, or flattened: a stage begins.
        ends: it ends with a halving pool.
        pool_follows: a halving pool stands behind it.
        opens: it is the first block of a container that its authors made for a stage.
    """

    paths: Part
    layers: int = 0
    starts: bool = False
    ends: bool = False
    pool_follows: bool = False
    opens: bool = False

    def halves(self) -> bool:
        return self.starts or self.ends or self.pool_follows


def encoder_blocks(model: nn.Module, head: Sequence[str]) -> list[Part]:
    """Residual blocks, inception modules, layers with their norm: all parts that a network's authors did not part.

    Args:
        head: paths of modules that are no part of the encoder.
    """
    return _timm_parts(model, head, coarse=False) or [block.paths for block in _Walk(model, head).blocks()]


def encoder_stages(model: nn.Module, head: Sequence[str]) -> list[Part]:
    """The blocks between two halvings of the map, or those of one container that its authors made for them.

    Of networks with hardly any stages, all blocks.
    """
    stages = _timm_parts(model, head, coarse=True)
    if not FEWEST_STAGES <= len(stages) <= MOST_STAGES:
        stages = _join_stages(_Walk(model, head).blocks())
    return stages if len(stages) >= FEWEST_STAGES else encoder_blocks(model, head)


def owners(model: nn.Module) -> dict[str, list[str]]:
    """The modules that have parameters of their own, in module order, with the names of these.

    A parameter that several modules share is the first one's.
    """
    names_by_module: dict[str, list[str]] = {}
    for name, _ in model.named_parameters():
        names_by_module.setdefault(name.rpartition(".")[0], []).append(name)
    return {path: names_by_module[path] for path, _ in model.named_modules() if path in names_by_module}


def module_and_above(path: str) -> Iterator[str]:
    """A path and those of all modules around it, up to the network itself."""
    yield path
    while path:
        path = path.rpartition(".")[0]
        yield path


# --- timm's own parts ------------------------------------------------------------------------------------------------


def _timm_parts(model: nn.Module, head: Sequence[str], *, coarse: bool) -> list[Part]:
    """By timm's table of the network; [] where it has none. What it counts to the head joins the last part below."""
    root, core = unwrap(model)
    if not hasattr(core, "group_matcher"):
        return []
    from timm.models import group_parameters

    try:
        table = core.group_matcher(coarse=coarse)
    except (AssertionError, NotImplementedError):  # timm's ways to say that it has no table of this network
        return []
    index = group_parameters(core, table, reverse=True)
    below = len(root) + 1 if root else 0
    paths_by_number: dict[int, Part] = defaultdict(list)
    to_head = -1
    for path, names in owners(model).items():
        number = index[names[0][below:]]
        if is_below(path, head):
            to_head = number
        else:
            paths_by_number[number].append(path)
    parts = [paths_by_number[number] for number in sorted(paths_by_number)]
    if to_head in paths_by_number and len(parts) > 1:
        parts[-2:] = [parts[-2] + parts[-1]]
    return parts


# --- parts by the order of modules -----------------------------------------------------------------------------------


class _Walk:
    """A way through the modules of a network, the head left out."""

    def __init__(self, model: nn.Module, head: Sequence[str]) -> None:
        self.model = model
        self.head = head
        self.owners = owners(model)
        self.shapes = {name: weight.shape for name, weight in model.named_parameters()}
        layers = [path for path in self.owners if self._is_layer(path) and not is_below(path, head)]
        self.layers = Counter(above for path in layers for above in module_and_above(path))  # in and below each module

    def blocks(self) -> list[Block]:
        """All blocks, in module order."""
        return [block for block in self._inside("", self.model) if block.paths]

    def _inside(self, path: str, module: nn.Module) -> list[Block]:
        """The blocks of a module that is parted; where it has no layers, all in one."""
        lead = Block([path] if path in self.owners else [])  # what stands before the first layer goes with it
        blocks: list[Block] = []
        for name, child in module.named_children():
            for block in self._of(f"{path}.{name}".lstrip("."), child):
                if block.layers and not blocks:
                    block.paths[:0] = lead.paths
                    block.starts |= lead.ends
                if block.layers:
                    blocks.append(block)
                elif blocks:
                    blocks[-1].paths += block.paths
                    blocks[-1].pool_follows |= block.ends
                else:
                    lead.paths += block.paths
                    lead.ends |= block.ends
        return self._as_stage(path, blocks) if blocks else [lead]

    def _of(self, path: str, module: nn.Module) -> list[Block]:
        if is_below(path, self.head):
            return []
        children = next(module.children(), None) is not None
        if children and (isinstance(module, _CONTAINERS) or self._is_parted(path)):
            return self._inside(path, module)
        return [self._block(path, module)]

    def _is_parted(self, path: str) -> bool:
        """Whether a module holds the head, or more than half of all layers: then it is no block."""
        return any(head.startswith(f"{path}.") for head in self.head) or 2 * self.layers[path] > self.layers[""]

    def _block(self, path: str, module: nn.Module) -> Block:
        """A module that is not parted."""
        inside = [(f"{path}.{name}".rstrip("."), layer) for name, layer in module.named_modules()]
        block = Block([inner for inner, _ in inside if inner in self.owners], self.layers[path])
        flattens = isinstance(module, nn.Linear)
        block.starts = flattens or any(isinstance(layer, nn.Conv2d) and _stride(layer) > 1 for _, layer in inside)
        places = [place for place, (_, layer) in enumerate(inside) if isinstance(layer, _POOLS) and _stride(layer) > 1]
        if places and not block.starts:
            block.ends = not any(self._is_layer(inner) for inner, _ in inside[places[-1] :])
            block.starts = not block.ends
        return block

    def _as_stage(self, path: str, blocks: list[Block]) -> list[Block]:
        """The blocks of a container: with one halving at most, it is one stage or a part of one."""
        for block in blocks:
            block.ends |= block.pool_follows and len(blocks) == 1
        if len(blocks) < 2 or self._is_parted(path) or sum(block.halves() for block in blocks) > 1:
            return blocks
        has_end = blocks[-1].ends or blocks[-1].pool_follows
        within = any(block.halves() for block in blocks[:-1]) or blocks[-1].starts
        for block in blocks:
            block.starts = block.ends = block.pool_follows = block.opens = False
        blocks[0].opens, blocks[0].starts, blocks[-1].ends = True, within, has_end
        return blocks

    def _is_layer(self, path: str) -> bool:
        """Whether a module holds a matrix or a kernel."""
        if isinstance(self.model.get_submodule(path), (nn.Conv2d, nn.Linear)):
            return path in self.owners
        shapes = [self.shapes[name] for name in self.owners.get(path, [])]
        return any(sum(side > 1 for side in shape) > 1 for shape in shapes)


def _join_stages(blocks: Sequence[Block]) -> list[Part]:
    """Stages out of blocks."""
    stages: list[list[Block]] = []
    for block in blocks:
        if not stages or _begins(block, stages[-1], is_stem=len(stages) == 1):
            stages.append([])
        stages[-1].append(block)
    return [[path for block in stage for path in block.paths] for stage in stages]


def _begins(block: Block, before: Sequence[Block], *, is_stem: bool) -> bool:
    """Whether a block begins a stage, and does not go on with the one before."""
    if block.starts or before[-1].ends or before[-1].pool_follows:
        return True
    if block.ends:  # as a transition of DenseNet ends the dense blocks before it
        return any(earlier.halves() for earlier in before)
    only_halves = len(before) == 1 and before[0].halves() and not is_stem  # as in ConvNeXt before each stage
    return block.opens and not only_halves


def _stride(layer: Any) -> int:
    return largest(layer.stride)
