"""A network as a file of torch.export."""

import io
from typing import Any

import torch
from torch import Tensor

from cnntrain.config.schema.export import Format
from cnntrain.export.graph import draw_graph, silence
from cnntrain.export.subject import ExportedFile, Subject


def to_torch_export(subject: Subject) -> ExportedFile:
    """The network as torch.export.load reads it; what it says of itself are extra files.

    Raises:
        ConfigError: the graph is not one for all images.
    """
    program, file = draw_graph(subject, Format.torch_export), io.BytesIO()
    with silence():
        torch.export.save(program, file, extra_files=subject.metadata)
        module: Any = torch.export.load(io.BytesIO(file.getvalue())).module()

    @torch.no_grad()
    def ask(inputs: Tensor) -> Tensor:
        answer: Tensor = module(inputs)
        return answer

    return ExportedFile(file.getvalue(), ask, f"torch {torch.__version__}")
