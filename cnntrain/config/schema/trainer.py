"""The length of the run, the hardware and the bookkeeping."""

import enum
import re
from dataclasses import dataclass, field
from typing import Any, Optional, Union, cast

from cnntrain.config.schema.limits import AUTO, number, whole_number

LOG_STEPS = 20  # between two log rows, where no number of them is given


class Precision(enum.Enum):
    auto = "auto"  # bf16 on CUDA that has it, else fp16 there, fp32 elsewhere
    fp32 = "fp32"
    tf32 = "tf32"
    bf16 = "bf16"
    fp16 = "fp16"

    @property
    def is_half(self) -> bool:
        """Whether values of 16 bits are computed with, so that fp32 is a way out of overflows."""
        return self in (Precision.bf16, Precision.fp16)


class GradExchange(enum.Enum):
    fp32 = "fp32"
    bf16 = "bf16"


COMPILE_MODES = ("reduce-overhead", "max-autotune")  # as torch.compile calls them, beside its default

STEPS_OR_TIME = "a number of steps >= 1, or a time such as 90s, 5m or 1.5h"


@dataclass
class TrainerSettings:
    epochs: int = number(10, ge=1, most=10_000_000)
    max_steps: Optional[int] = number(None, ge=1)  # end after this many optimizer steps, the schedule fitted to them
    max_time: Optional[str] = None  # end after 90s, 30m, 1.5h or 2h30m (90: seconds), the schedule fitted to it
    device: str = "auto"  # auto | cpu | cuda | cuda:N | mps
    # processes of this machine that train together, one per GPU; auto: as many as it has GPUs; see docs/distributed.md
    devices: Union[int, str] = number(1, ge=1, most=1024, words=(AUTO,))
    precision: Precision = Precision.auto
    # of torch on the CPU; null: OMP_NUM_THREADS, else the cores of this process
    threads: Optional[int] = number(None, ge=1, most=1024)
    channels_last: Optional[bool] = None  # memory layout of images and weights; null: on for convolutional nets
    # false | true | reduce-overhead | max-autotune: see docs/device.md
    compile: Union[bool, str] = number(False, words=COMPILE_MODES)
    deterministic: bool = False  # only algorithms that repeat their bits, slower on a GPU
    accumulate: int = number(1, ge=1, most=1_000_000)  # batches per step
    # each batch goes through the network in parts of so many images; auto: halved where memory runs out; null: whole
    micro_batch: Union[int, str, None] = number(None, ge=2, most=1_000_000, words=(AUTO,))
    clip_norm: Optional[float] = number(None, gt=0)  # largest norm of the gradient
    # training images (a tenth, or 100, at most) scored unaugmented after each epoch; 0: none
    probe: int = number(1000, ge=0)
    grad_exchange: GradExchange = GradExchange.fp32  # what several processes send: fp32, or bf16 in half the bytes
    ema: Optional[float] = number(None, gt=0, lt=1)  # decay per step of the averaged weights, such as 0.999; null: none
    early_stop: Optional[int] = number(None, ge=1)  # epochs without a better validation score before the end
    # steps, or time such as 5m, between two saves of checkpoints/last; one more after each epoch
    save_every: Union[int, str] = field(default=500, metadata={"rule": STEPS_OR_TIME})
    # steps between two rows of metrics.csv and TensorBoard; null: 20, and no more than four rows a second
    log_every: Optional[int] = number(None, ge=1)
    tensorboard: bool = True
    profile: bool = False  # trace.json.gz of four steps in the run folder, and what takes longest in them
    report: bool = False  # write report.html into the run folder when the run is done

    def __post_init__(self) -> None:
        self.micro_batch = whole_number(self.micro_batch)
        self.devices = cast("int | str", whole_number(self.devices))

    def max_seconds(self) -> float | None:
        """`max_time` in seconds."""
        return None if self.max_time is None else _seconds(self.max_time)

    def save_steps(self) -> int | None:
        """`save_every` where it counts steps, also as the text that comes out of the environment."""
        text = str(self.save_every)
        return int(text) if text.isdecimal() else None

    def save_seconds(self) -> float | None:
        """`save_every` where it is a time."""
        text = str(self.save_every)
        return _seconds(text) if text[-1:].isalpha() else None

    def faults(self) -> list[tuple[str, Any, str]]:
        """Broken rules that a single limit cannot state, as (key, value, rule)."""
        faults: list[tuple[str, Any, str]] = []
        if self.max_time is not None and not _seconds(self.max_time):
            faults.append(("max_time", self.max_time, "a time such as 90s, 30m, 1.5h or 2h30m"))
        if not (self.save_steps() or self.save_seconds()):
            faults.append(("save_every", self.save_every, STEPS_OR_TIME))
        if self.compile == "max-autotune" and self.deterministic:
            rule = "reduce-overhead with trainer.deterministic=true, which chooses no algorithm by its time"
            faults.append(("compile", self.compile, rule))
        if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", self.device):
            faults.append(("device", self.device, "auto, cpu, cuda, cuda:N or mps"))
        elif self.devices != 1 and (self.device == "mps" or ":" in self.device):
            faults.append(("device", self.device, f"auto, cuda or cpu with trainer.devices={self.devices}"))
        return faults


def _seconds(text: str) -> float | None:
    """`2h30m` in seconds; a bare number counts as seconds; None for anything else."""
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    match = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?", text)
    if not text or not match:
        return None
    return sum(float(part or 0) * unit for part, unit in zip(match.groups(), (3600, 60, 1), strict=True))
