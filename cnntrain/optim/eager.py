"""torch's optimizers as they run where nothing compiles them."""

import inspect
from typing import TypeVar

import torch
from torch.optim import Optimizer

Kind = TypeVar("Kind", bound=Optimizer)


class _Eager(Optimizer):
    """What all optimizers share, without the wrappers that hide it from torch's compiler."""

    add_param_group = inspect.unwrap(Optimizer.add_param_group)
    zero_grad = inspect.unwrap(Optimizer.zero_grad)
    state_dict = inspect.unwrap(Optimizer.state_dict)
    load_state_dict = inspect.unwrap(Optimizer.load_state_dict)


def eager(kind: type[Kind]) -> type[Kind]:
    """A class of torch.optim that does the same, and leaves torch's compiler alone.

    The wrappers around its methods import the compiler, which takes more than a second of every start, only to tell it
    to pass over them. We compile networks and never optimizers.
    """
    step = torch.no_grad()(inspect.unwrap(kind.step))
    return type(kind.__name__, (_Eager, kind), {"step": step, "__doc__": kind.__doc__})
