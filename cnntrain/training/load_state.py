"""What a checkpoint holds, put into a network and its optimizer: all of it is looked at first, whoever wrote it."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cnntrain.errors import CheckpointError
from cnntrain.optim.optimizers import OUR_OPTIMIZERS, fill_momentum, needed_state

ANOTHER = "use another checkpoint of the run, such as checkpoints/previous or best"  # the advice for one that is odd


def infinite_names(tensors: Mapping[str, Any]) -> list[str]:
    """Names of the tensors that hold a NaN or infinite value; the host waits for the device once, where none does."""
    floats = {name: t for name, t in tensors.items() if isinstance(t, Tensor) and t.is_floating_point() and t.numel()}
    if not floats:
        return []
    norms = torch._foreach_norm([value.detach() for value in floats.values()])
    if torch.stack([norm.float() for norm in norms]).sum().isfinite():
        return []
    return [name for name, value in floats.items() if not value.isfinite().all()]  # a norm may overflow by itself


def _is_odd(value: Tensor, parameter: Tensor) -> bool:
    """Whether a tensor is neither like the parameter nor a count of steps; of other optimizers, both may be right."""
    return not value.is_floating_point() or bool(value.shape != parameter.shape if value.ndim else value < 0)


def _other_kind(one: Tensor, other: Tensor) -> bool:
    return one.is_floating_point() != other.is_floating_point() or one.is_complex() != other.is_complex()


def load_optimizer(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Fill an optimizer; a state that is none of its own is a CheckpointError.

    The numbers of its groups stay those of the settings, which a resume may have changed, but for the learning rates.
    """
    numbers = [{k: v for k, v in group.items() if k not in ("params", "lr")} for group in optimizer.param_groups]
    own_keys = {parameter: set(parts) for parameter, parts in optimizer.state.items()}  # there from the start
    try:
        groups = zip(optimizer.param_groups, state["param_groups"], strict=True)
        state = state | {"param_groups": [own | saved for own, saved in groups]}  # dtypes are not saved
        optimizer.load_state_dict(state)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"optimizer: the saved state does not fit ({error}); keep the optimizer") from None
    fill_momentum(optimizer)  # of some parameters, none may be there
    keys, is_known = needed_state(optimizer), isinstance(optimizer, OUR_OPTIMIZERS)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter_state = optimizer.state.get(parameter, {})
            parts = {key: value for key, value in parameter_state.items() if isinstance(value, Tensor)}
            first_keys = own_keys.get(parameter, set())
            if (parameter_state or first_keys) and (missing := (keys | first_keys) - parts.keys()):
                gaps = ", ".join(sorted(missing))
                raise CheckpointError(f"optimizer: the saved state has no {gaps}; keep the optimizer as it was")
            if infinite_names(parts) or (is_known and any(_is_odd(value, parameter) for value in parts.values())):
                raise CheckpointError(f"optimizer: the saved state does not fit the network; {ANOTHER}")
    for group, own in zip(optimizer.param_groups, numbers, strict=True):
        group.update(own)


def load_weights(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Fill a model; names or shapes that do not fit are a CheckpointError that names them."""
    tensors = model.state_dict()
    misfits = [f"{name} is missing" for name in tensors.keys() - weights.keys()]
    misfits += [f"{name} is not in the model" for name in weights.keys() - tensors.keys()]
    misfits += [
        f"{name} is {tuple(weights[name].shape)} in the checkpoint and {tuple(tensors[name].shape)} in the model"
        for name in tensors.keys() & weights.keys()
        if tensors[name].shape != weights[name].shape
    ]
    infinite_weights = set(infinite_names(weights)) - set(infinite_names(tensors)) if not misfits else set()
    if suspects := sorted(
        infinite_weights or {name for name in tensors if name in weights and _other_kind(weights[name], tensors[name])}
    ):
        raise CheckpointError(f"model: {suspects[0]} is not finite or of another type in the checkpoint; {ANOTHER}")
    if misfits:
        text = "; ".join(sorted(misfits)[:3]) + (f" and {len(misfits) - 3} more" if len(misfits) > 3 else "")
        raise CheckpointError(f"model: the checkpoint does not fit ({text}); keep the run's model settings")
    with torch.no_grad():  # load_state_dict asks some networks for versions that plain tensors do not have
        for name, value in tensors.items():
            value.copy_(weights[name])
