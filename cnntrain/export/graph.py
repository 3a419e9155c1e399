"""The graph of a network: what torch.export draws, and why it cannot, in one line."""

import contextlib
import io
from collections.abc import Iterator
from typing import Any

import torch

from cnntrain.config.schema.export import Format
from cnntrain.errors import ConfigError
from cnntrain.export.subject import Subject
from cnntrain.models.weights.download import quiet
from cnntrain.registry import line_in_user_code
from cnntrain.runtime.faults import is_out_of_memory
from cnntrain.text import cut, one_line

LONGEST = 200  # letters of an exporter's reason
ALONE = "format=safetensors stores the weights alone"


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Keep exporters from telling their steps and drawing graphs on the terminal; errors still rise."""
    with quiet(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def draw_graph(subject: Subject, format: Format) -> Any:
    """The exported program (torch.export.ExportedProgram) of a network, for any number of images.

    It stands before every format that holds a graph: what torch.export cannot prove to be the same for all images, a
    trace would get wrong without a word.

    Raises:
        ConfigError: the network takes another way for other pixels, or for another number of images.
    """
    batch = torch.export.Dim("batch", min=1)
    try:
        with silence(), torch.no_grad():
            program = torch.export.export(
                subject.network, (subject.example,), dynamic_shapes=({0: batch},), strict=False
            )
    except Exception as error:  # a network can fail with anything
        raise _fault(error, format) from error
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # names the folders of this machine
    return program


def _fault(error: Exception, format: Format) -> Exception:
    if is_out_of_memory(error):
        return error
    kind = type(error).__name__
    if kind == "GuardOnDataDependentSymNode":
        what, advice = "chooses its way by the values of its input", "take torch.where in place of the branch; "
    elif "Constraints violated" in str(error):
        what, advice = "does not take any number of images alike", "let it read the number from its input; "
    else:
        what, advice = f"cannot be drawn as a graph ({cut(one_line(error), LONGEST)})", ""
    place = line_in_user_code(error)
    return ConfigError(
        f"format: {format.name} holds one graph for all images, and this network {what}"
        + (f", in {place}" if place else "")
        + f"; {advice}{ALONE}"
    )
