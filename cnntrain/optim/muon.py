"""Muon: filters and matrices take steps in which all directions weigh the same; all else learns by AdamW or SGD."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

from cnntrain.config.schema.optimizer import MuonSettings, Others
from cnntrain.optim.eager import eager

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of x, x^3 and x^5: steep at zero, and roughly one from there on


class Muon(Optimizer):
    """Muon (kellerjordan.github.io/posts/muon).

    The momentum of a filter bank or matrix, (out, in) or (out, in, height, width) as (out, in x height x width), is
    made orthogonal by a Newton-Schulz iteration, on CUDA in bf16; those of one shape go through it together, as its
    launches would be most of a step. Momenta are means, `m += (1 - momentum) (gradient - m)`, which is the same
    direction. Nothing waits for the device.

    Args:
        groups: of parameters; those of a group with `is_orthogonal` are stepped so, the others as `settings.others`
            says.
        lr: the first rate.
        fused: the device has fused steps, for the others.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float, settings: MuonSettings, fused: bool) -> None:
        super().__init__(groups, {"lr": lr, "fused": fused})  # torch puts loaded counts of steps where "fused" says
        self.settings, self.fused = settings, fused
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                if group["is_orthogonal"] or settings.others is Others.sgd:
                    state["momentum_buffer"] = torch.zeros_like(parameter)
                else:
                    place = parameter.device if fused else None
                    state["step"] = torch.zeros((), dtype=torch.float32, device=place)
                    state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """See torch.optim.Optimizer; there is no closure."""
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if parameters and group["is_orthogonal"]:
                self._step_orthogonal(parameters, group["lr"], group["weight_decay"])
            elif parameters:
                self._step_others(parameters, group["lr"], group["weight_decay"])

    def _step_orthogonal(self, parameters: list[Tensor], lr: float, decay: float) -> None:
        settings = self.settings
        gradients, momenta = [p.grad for p in parameters], self._states(parameters, "momentum_buffer")
        torch._foreach_lerp_(momenta, gradients, 1 - settings.momentum)
        updates = torch._foreach_lerp(gradients, momenta, settings.momentum) if settings.nesterov else momenta
        if settings.unit_norm:
            norms = torch.stack(torch._foreach_norm(parameters)).clamp_min_(settings.eps).reciprocal_()
            for parameter, factor in zip(parameters, norms.unbind(), strict=True):
                parameter.mul_(factor * len(parameter) ** 0.5)
        elif decay:
            torch._foreach_mul_(parameters, 1 - lr * decay)

        by_shape: dict[tuple[torch.Size, bool], list[int]] = {}
        for index, parameter in enumerate(parameters):
            by_shape.setdefault((parameter.shape, _is_channels_last(parameter)), []).append(index)
        for (shape, last), places in by_shape.items():
            matrices = orthogonal(torch.stack([_matrix(updates[place], last) for place in places]), settings.ns_steps)
            size = 1.0 if settings.unit_norm else 0.2 * max(matrices.shape[1:]) ** 0.5
            steps = [_like(matrix, shape, last) for matrix in matrices.to(parameters[places[0]].dtype).unbind()]
            torch._foreach_add_([parameters[place] for place in places], steps, alpha=-lr * size)

    def _step_others(self, parameters: list[Tensor], lr: float, decay: float) -> None:
        settings, gradients = self.settings, [p.grad for p in parameters]
        if settings.others is Others.sgd:
            momenta = self._states(parameters, "momentum_buffer")
            sgd(
                parameters,
                gradients,
                momenta,
                fused=self.fused,
                foreach=not self.fused,
                weight_decay=decay,
                momentum=settings.beta1,
                lr=lr,
                dampening=0.0,
                nesterov=settings.beta1 > 0,
                maximize=False,
            )
            return
        means, squares, counts = (self._states(parameters, key) for key in ("exp_avg", "exp_avg_sq", "step"))
        adamw(
            parameters,
            gradients,
            means,
            squares,
            [],
            counts,
            fused=self.fused,
            foreach=not self.fused,
            amsgrad=False,
            beta1=settings.beta1,
            beta2=settings.beta2,
            lr=lr,
            weight_decay=decay,
            eps=settings.eps,
            maximize=False,
        )

    def _states(self, parameters: list[Tensor], key: str) -> list[Tensor]:
        return [self.state[parameter][key] for parameter in parameters]


def orthogonal(matrices: Tensor, steps: int) -> Tensor:
    """Matrices (N, A, B) with their singular values brought near 1 (within about 0.7 to 1.2 after five steps)."""
    x = matrices.to(torch.bfloat16) if matrices.is_cuda else matrices
    is_tall = x.shape[1] > x.shape[2]
    x = x.mT if is_tall else x
    x = x / torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True).clamp_min_(1e-7)
    first, third, fifth = COEFFICIENTS
    for _ in range(steps):
        square = torch.bmm(x, x.mT)
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=third, alpha=fifth), x, beta=first)
    return x.mT if is_tall else x


def _is_channels_last(parameter: Tensor) -> bool:
    return parameter.ndim == 4 and parameter.is_contiguous(memory_format=torch.channels_last)


def _matrix(update: Tensor, last: bool) -> Tensor:
    """(out, ...) as (out, B), in the order of memory: turning columns round turns those of the result, no more."""
    return (update.permute(0, 2, 3, 1) if last else update).flatten(1)


def _like(matrix: Tensor, shape: torch.Size, last: bool) -> Tensor:
    if not last:
        return matrix.view(shape)
    out, entering, height, width = shape
    return matrix.view(out, height, width, entering).permute(0, 3, 1, 2)


# --- the builder of the entry ----------------------------------------------------------------------------------------


def muon(settings: MuonSettings, groups: list[dict[str, Any]], lr: float, fused: bool) -> Muon:
    """See Muon; the rate of the others is a factor of `lr`, as schedules and batches change both alike."""
    factor = (settings.others_lr or settings.lr) / settings.lr
    for group in groups:
        if not group["is_orthogonal"]:
            group["lr_factor"] *= factor
    return eager(Muon)(groups, lr, settings, fused)
