"""The numbers of the passes: fp32, tf32, bf16 or fp16."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from cnntrain.config.schema.trainer import Precision


def choose_precision(precision: Precision, device: torch.device) -> tuple[Precision, list[str]]:
    """The precision in use, and warnings where the choice is slow or without effect here."""
    kind = device.type
    if precision is Precision.auto:
        if kind == "cuda":
            return (Precision.bf16 if torch.cuda.is_bf16_supported(including_emulation=False) else Precision.fp16), []
        return Precision.fp32, []
    if precision is Precision.tf32 and (kind != "cuda" or torch.cuda.get_device_capability(device) < (8, 0)):
        return precision, [f"trainer.precision=tf32 has no effect on {kind} here: it is an NVIDIA Ampere mode"]
    if precision is Precision.fp16 and kind == "cpu":
        return precision, ["trainer.precision=fp16 is slow on a CPU; use trainer.precision=fp32"]
    if precision is Precision.bf16 and kind == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        slow = "this GPU has no bf16 units and emulates them"
        return precision, [f"trainer.precision=bf16: {slow}; use trainer.precision=fp16"]
    if precision is Precision.bf16 and kind == "cpu" and _cpu_lacks_bf16():
        slow = "this CPU has no bf16 units, expect 8 times the time of fp32"
        return precision, [f"trainer.precision=bf16: {slow}; use trainer.precision=fp32"]
    return precision, []


def _cpu_lacks_bf16() -> bool:
    """Whether the CPU is known to have no bf16 units: only Linux tells."""
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and not {"avx512_bf16", "amx_bf16", "bf16"} & set(cpuinfo.read_text().split())


def set_matmul_precision(precision: Precision) -> None:
    """TF32 for float32 products and convolutions when it was asked for, exact float32 when not."""
    allowed = precision is Precision.tf32
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[Any]:
    """The autocast context of a precision; nothing for fp32 and tf32."""
    dtype = {Precision.bf16: torch.bfloat16, Precision.fp16: torch.float16}.get(precision)
    return torch.autocast(device.type, dtype) if dtype else nullcontext()


def grad_scaler(precision: Precision, device: torch.device) -> torch.amp.GradScaler:
    """Loss scaling, switched on for fp16 only (arXiv 1710.03740)."""
    return torch.amp.GradScaler(device.type, enabled=precision is Precision.fp16)
