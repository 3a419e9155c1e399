"""The weights of a network as a safetensors file, under the names that timm or torchvision give them."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from cnntrain.export.subject import ExportedFile, Subject
from cnntrain.export.twin import NoTwin, Twin, core_of, find_twin
from cnntrain.text import one_line


@dataclass(frozen=True)
class Weights(ExportedFile):
    """A file of weights; what answers is the twin of the network, into which they were loaded.

    Attributes:
        twin: None where there is none.
        reason: why not.
    """

    twin: Twin | None = None
    reason: str = field(default="", kw_only=True)


def to_safetensors(subject: Subject) -> Weights:
    """The weights, loaded strictly into the twin of the network where there is one."""
    from safetensors.torch import load, save

    core, _ = core_of(subject.job)
    # Copies: tensors that share their memory are refused.
    tensors = {key: value.detach().clone().contiguous() for key, value in core.state_dict().items()}
    content = save(tensors, metadata={"format": "pt", **subject.metadata})
    try:
        twin = find_twin(subject.job)
        network: Any = twin.build(core)
        network.load_state_dict(load(content), strict=True)
        network = twin.finish(network)
        runtime = twin.library
    except (NoTwin, RuntimeError) as error:  # load_state_dict raises a RuntimeError
        reason = str(error) if isinstance(error, NoTwin) else one_line(error)
        return Weights(content, subject.job.model, "cnntrain", reason=reason)

    @torch.no_grad()
    def ask(inputs: Tensor) -> Tensor:
        answer: Tensor = network(inputs)
        return answer

    return Weights(content, ask, runtime, (("names", f"those of {twin.library}"),), twin)
