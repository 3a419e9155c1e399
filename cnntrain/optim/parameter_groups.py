"""Parameter groups: which part of a network learns at which pace, and with which weight decay."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn

from cnntrain.config.schema.optimizer import OptimizerSettings
from cnntrain.models.head import head_paths
from cnntrain.models.name_patterns import is_below, matching, require

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
    Parameters whose rate has a factor of their own have groups of their own; the first group of a learner has none.

    Args:
        learners: parts of the network with factors of rate and decay; None: the whole network, at factors of 1.

    Raises:
        ConfigError: a pattern of `lr_factors` that matches no parameter.
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
    factors = _lr_factors(settings.lr_factors, list(names.values()))
    groups: list[dict[str, Any]] = []
    for learner in learners or [Learner("model", list(model.parameters()))]:
        members: dict[tuple[float, str], list[Tensor]] = {(1.0, kind): [] for kind in decays}
        for parameter in learner.parameters:
            name = names[id(parameter)]
            if parameter.ndim > 1 and id(parameter) not in of_norms:
                kind = home if id(parameter) in of_embeddings else "weights"
            elif has_bias_group and name.rpartition(".")[2] == "bias" and id(parameter) not in of_norms:
                kind = "biases"
            else:
                kind = "plain"
            members.setdefault((factors.get(name, 1.0), kind), []).append(parameter)
        groups += [
            {
                "params": parameters,
                "weight_decay": decays[kind] * learner.wd_factor / factor,  # what it takes off in a step stays
                "lr_factor": learner.lr_factor * factor,
            }
            for (factor, kind), parameters in members.items()
            if parameters
        ]
    return groups


def part_filters(groups: list[dict[str, Any]], model: nn.Module) -> list[dict[str, Any]]:
    """The groups with `is_orthogonal`, of which the filters and matrices have their own, ahead of all others.

    Embeddings, depthwise filters and the layers that make the logits are none (kellerjordan.github.io/posts/muon).
    """
    heads = {id(part) for path in head_paths(model) for part in model.get_submodule(path).parameters()}
    apart = heads | _embeddings(model)
    parts = []
    for is_orthogonal in (True, False):
        for group in groups:
            members = [p for p in group["params"] if (is_filter(p) and id(p) not in apart) is is_orthogonal]
            parts += [group | {"params": members, "is_orthogonal": is_orthogonal}] if members else []
    return parts


def _lr_factors(factors: dict[str, float], names: list[str]) -> dict[str, float]:
    """The factor of each parameter that a pattern matches, of several that of the first."""
    require("optimizer.lr_factors", list(factors), names, "parameter")
    pairs = [(name, factor) for pattern, factor in factors.items() for name in matching(pattern, names)]
    return dict(reversed(pairs))


def is_filter(parameter: Tensor) -> bool:
    """Whether a weight is a matrix, or makes one of (out, in x height x width): not of depthwise convolutions."""
    return parameter.ndim >= 2 and min(parameter.shape[:2]) > 1


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
