"""Parameter groups: which part of a network learns at which pace, and with which weight decay."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn

from cnntrain.config.schema.optimizer import OptimizerSettings
from cnntrain.models.name_patterns import is_below

# In torchvision's transformers, whose recipes leave them without decay.
_EMBEDDINGS = ("class_token", "pos_embedding", "relative_position_bias_table")


@dataclass
class Learner:
    """A part of the network that learns at a pace of its own."""

    name: str
    parameters: list[nn.Parameter]
    lr_factor: float = 1.0  # of the learning rate
    wd_factor: float = 1.0  # of each weight decay


def parameter_groups(
    model: nn.Module, settings: OptimizerSettings, learners: Sequence[Learner] | None = None
) -> list[dict[str, Any]]:
    """Weights, the parameters of norms, biases and embeddings of each learner, each with a weight decay of its own.

    Those share a group whose decay is the same: by default all but the weights have none (arXiv 1812.01187). Scales of
    single channels, which have one dimension too, go with the norms. Embeddings are what a network wants no decay for.

    Args:
        learners: parts of the network with factors of rate and decay; None: the whole network, at factors of 1.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    of_norms = {id(p) for module in model.modules() if _is_norm(module) for p in module.parameters(recurse=False)}
    has_bias_group = settings.norm_weight_decay != settings.bias_weight_decay
    decays = {
        "weights": settings.weight_decay,
        "plain": settings.norm_weight_decay,
        "biases": settings.bias_weight_decay,
        "embeddings": settings.embedding_weight_decay or 0.0,
    }
    of_embeddings = _embeddings(model) if settings.embedding_weight_decay is not None else set()
    home = "plain" if settings.embedding_weight_decay == settings.norm_weight_decay else "embeddings"
    groups: list[dict[str, Any]] = []
    for learner in learners or [Learner("model", list(model.parameters()))]:
        members: dict[str, list[Tensor]] = {kind: [] for kind in decays}
        for parameter in learner.parameters:
            if parameter.ndim > 1 and id(parameter) not in of_norms:
                members[home if id(parameter) in of_embeddings else "weights"].append(parameter)
            elif has_bias_group and names[id(parameter)].rpartition(".")[2] == "bias" and id(parameter) not in of_norms:
                members["biases"].append(parameter)
            else:
                members["plain"].append(parameter)
        groups += [
            {"params": members[kind], "weight_decay": decay * learner.wd_factor, "lr_factor": learner.lr_factor}
            for kind, decay in decays.items()
            if members[kind]
        ]
    return groups


def _is_norm(module: nn.Module) -> bool:
    """Whether the name says so: libraries bring norms of their own beside torch's."""
    return "Norm" in type(module).__name__


def _embeddings(model: nn.Module) -> set[int]:
    """Ids of the parameters that the networks of timm list in `no_weight_decay()`, and those of torchvision like them.

    Of a network inside another, such as one that enlarges its images, the list of the outer one counts, if it has one.
    """
    ids: set[int] = set()
    paths: list[str] = []
    for path, module in model.named_modules():
        if type(module).__module__.startswith("torchvision."):
            ids |= {id(part) for name, part in module.named_parameters(recurse=False) if name in _EMBEDDINGS}
        if is_below(path, paths) or not callable(list_names := getattr(module, "no_weight_decay", None)):
            continue
        paths.append(path)
        patterns = list(list_names())
        for name, parameter in module.named_parameters():
            if any(fnmatchcase(name, pattern) for pattern in patterns):
                ids.add(id(parameter))
    return ids
