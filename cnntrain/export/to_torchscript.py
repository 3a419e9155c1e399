"""A network as a file of TorchScript."""

import io
from typing import Any

import torch
from torch import Tensor

from cnntrain.config.schema.export import Format
from cnntrain.errors import ConfigError
from cnntrain.export.graph import LONGEST, draw_graph, silence
from cnntrain.export.subject import ExportedFile, Subject
from cnntrain.runtime.faults import is_out_of_memory
from cnntrain.text import cut, one_line


def to_torchscript(subject: Subject) -> ExportedFile:
    """The network as traced; torch.jit.load reads it, in C++ too. What it says of itself are extra files.

    Raises:
        ConfigError: the graph is not one for all images, or cannot be traced.
    """
    draw_graph(subject, Format.torchscript)  # the proof that a trace of one input holds for all
    file = io.BytesIO()
    try:
        with silence(), torch.no_grad():
            traced = torch.jit.trace(subject.network, subject.example, check_trace=False)
            torch.jit.save(traced, file, _extra_files=subject.metadata)
            module: Any = torch.jit.load(io.BytesIO(file.getvalue()))
    except Exception as error:  # of the tracer, which fails with whatever the network does
        if is_out_of_memory(error):
            raise
        reason = cut(one_line(error), LONGEST)
        raise ConfigError(f"format: torchscript cannot hold this network ({reason}); choose another format") from error

    @torch.no_grad()
    def ask(inputs: Tensor) -> Tensor:
        answer: Tensor = module(inputs)
        return answer

    return ExportedFile(file.getvalue(), ask, f"torch {torch.__version__}")
