"""The network as torch.compile makes it: one graph of fixed sizes for each shape that comes back epoch after epoch."""

import logging
import os
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cnntrain.errors import ConfigError
from cnntrain.runtime.device import plain_passes, replays_graphs

SPARE_GRAPHS = 8  # torch's own limit, for what a run does beside its plan
_LEAVE = "or set trainer.compile=false"


@dataclass(frozen=True)
class Compiler:
    """How the networks of a run are compiled.

    Attributes:
        mode: trainer.compile, true or the name of a mode.
        device: where they run.
        say: is told of each graph before it is made, which can take minutes.
    """

    mode: bool | str
    device: torch.device
    say: Callable[[str], None]

    @property
    def replays(self) -> bool:
        """Whether whole passes are replayed as CUDA graphs, each of which writes over what the last one gave."""
        return self.mode is not True and replays_graphs(self.device)

    def __call__(self, network: nn.Module) -> "Compiled":
        """The network in compiled form, with the same weights; nothing is compiled before its first batch."""
        mode = self.mode if isinstance(self.mode, str) else None
        # Sizes that torch takes for variable after their first change cost the later, full batches their speed.
        return Compiled(torch.compile(network, dynamic=False, mode=mode), self)

    def prepare(self, graphs: int) -> None:
        """Make room for the graphs of one run; those of an earlier one in this process go.

        Raises:
            ConfigError: this machine has nothing to compile with.
        """
        self._need_tools()
        torch.compiler.reset()
        if "TORCH_LOGS" not in os.environ:
            for name in ("torch._dynamo", "torch._inductor", "torch.utils.cpp_extension"):
                logging.getLogger(name).setLevel(logging.ERROR)  # their warnings are for who writes a network
        warnings.filterwarnings("ignore", "TensorFloat32 tensor cores")  # trainer.precision says it
        if self.mode == "max-autotune":
            from torch._inductor import select_algorithm

            select_algorithm.PRINT_AUTOTUNE = False  # a table for each product
        limits: Any = torch._dynamo.config
        # Beyond its limit torch runs the plain network without a word.
        limits.recompile_limit = max(limits.recompile_limit, graphs + SPARE_GRAPHS)
        limits.accumulated_recompile_limit = max(limits.accumulated_recompile_limit, 2 * limits.recompile_limit)

    def _need_tools(self) -> None:
        if replays_graphs(self.device):
            from torch.utils._triton import has_triton

            if not has_triton():
                raise ConfigError(
                    f"trainer.compile: torch needs Triton for this GPU, and it is not there (given {self._told}); "
                    f"install triton, {_LEAVE}"
                )
            if not any(map(shutil.which, (os.environ.get("CC", ""), "gcc", "clang"))):
                raise ConfigError(
                    f"trainer.compile: Triton needs a C compiler, and there is none (given {self._told}); "
                    f"install gcc or clang, {_LEAVE}"
                )
        elif self.device.type == "cpu":
            from torch._inductor import cpp_builder, exc

            try:
                cpp_builder.get_cpp_compiler()
            except exc.InvalidCxxCompiler as error:
                raise ConfigError(
                    f"trainer.compile: torch needs a C++ compiler, and there is none (given {self._told}); "
                    f"install g++ or clang++, {_LEAVE}"
                ) from error

    @property
    def _told(self) -> str:
        return str(self.mode).lower()


class Compiled:
    """A network to call by batches, of which each new shape is compiled first.

    Args:
        network: as torch.compile gives it.
        compiler: that of the run.
    """

    def __init__(self, network: Callable[[Tensor], Any], compiler: Compiler) -> None:
        self._network, self._compiler = network, compiler
        self._shapes: set[tuple[torch.Size, bool]] = set()

    def __call__(self, inputs: Tensor) -> Any:
        """What the network answers to normalised images (N, C, S, S), or to features; valid up to the next call."""
        shape = inputs.shape, torch.is_grad_enabled()
        if shape not in self._shapes:
            self._shapes.add(shape)
            return self._compile(inputs)
        if self._compiler.replays:
            torch.compiler.cudagraph_mark_step_begin()
        return self._network(inputs)

    def _compile(self, inputs: Tensor) -> Any:
        """Call the network with the first batch of its shape, and say what that takes."""
        say, before = self._compiler.say, plain_passes()
        use, sizes = "training" if torch.is_grad_enabled() else "scoring", "x".join(map(str, inputs.shape[1:]))
        say(f"compiling the network for {use}, {len(inputs)} inputs of {sizes}; this takes a while")
        answer = self(inputs)
        if self._compiler.replays and plain_passes() > before:
            mode = self._compiler.mode
            say(f"for {use}, torch cannot replay this network as a CUDA graph: trainer.compile={mode} gains little")
        return answer


def own_gradients(parameters: list[nn.Parameter]) -> None:
    """Take gradients out of the memory of a CUDA graph, whose next pass would write over them."""
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad = parameter.grad.clone()
