"""What torch and its libraries say when the machine fails them, and what that means to a user: the one table of it.

The texts are those of torch (c10, ATen), of the CUDA runtime (cudaGetErrorString), cuBLAS, cuDNN and NCCL. Nothing here
imports torch.
"""

import enum
import signal
from dataclasses import dataclass

from cnntrain.errors import CnntrainError, ConfigError, FileSystemError, ResourceError
from cnntrain.registry import line_in_user_code
from cnntrain.text import one_line


class Kind(enum.Enum):
    """What has failed."""

    MEMORY = "memory"  # fewer images at a time may help
    FULL = "full"  # the card has no room for this process even to start
    MACHINE = "machine"  # the driver, the card or another process: nothing that a smaller batch would mend
    KERNEL = "kernel"  # a wrong index or address on the device: a bug, ours or in code of the user


@dataclass(frozen=True)
class Fault:
    """One line of the table.

    Attributes:
        phrases: any of them in the text of an error, which a line break ends, names this fault.
        line: what it means, and what to do; of MEMORY and FULL, said elsewhere.
    """

    kind: Kind
    phrases: tuple[str, ...]
    line: str = ""


_DEVICE = "trainer.device: "
_ELSEWHERE = "choose another with trainer.device=cuda:1, or trainer.device=cpu"

# The first that fits counts.
FAULTS = (
    Fault(
        Kind.MEMORY,
        (
            "CUDA out of memory",  # c10's allocator, as torch.OutOfMemoryError
            "HIP out of memory",
            "MPS backend out of memory",
            "can't allocate memory",  # c10's allocator of the host
            "not enough memory: you tried to allocate",  # the same on Windows
            "std::bad_alloc",
            "could not create a primitive\n",  # oneDNN; of a primitive descriptor, it would be a shape that it lacks
            "could not execute a primitive\n",
            "could not create a memory object\n",
            "CUBLAS_STATUS_ALLOC_FAILED",
            "CUDNN_STATUS_ALLOC_FAILED",
            "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
            "CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED",
            "CUDNN_STATUS_NOT_INITIALIZED",  # its handle takes memory, and nothing else of ours can fail there
            "CUBLAS_STATUS_NOT_INITIALIZED",
            "CUSOLVER_STATUS_ALLOC_FAILED",
            "Unable to find a valid cuDNN algorithm to run convolution",  # no workspace
            "was unable to find an engine to execute this computation",  # the same, of cuDNN's newer interface
        ),
    ),
    Fault(Kind.FULL, ("CUDA error: out of memory", "HIP error: out of memory")),  # of the driver, not of an allocator
    Fault(
        Kind.MACHINE,
        ("no kernel image is available", "the provided PTX was compiled with an unsupported toolchain"),
        f"{_DEVICE}this build of torch has no code for this GPU; install the build for its generation from pytorch.org,"
        " or use trainer.device=cpu",
    ),
    Fault(
        Kind.MACHINE,
        ("The NVIDIA driver on your system is too old", "driver version is insufficient"),
        f"{_DEVICE}the NVIDIA driver is too old for this build of torch; update the driver, install a build of torch "
        "for an older CUDA, or use trainer.device=cpu",
    ),
    Fault(
        Kind.MACHINE,
        ("Found no NVIDIA driver", "no CUDA-capable device is detected"),
        f"{_DEVICE}no NVIDIA driver or GPU answers; see whether nvidia-smi finds one, or use trainer.device=cpu",
    ),
    Fault(
        Kind.MACHINE,
        ("busy or unavailable", "exclusive-thread device already in use"),
        f"{_DEVICE}another process has the GPU to itself (nvidia-smi lists them); end it, or {_ELSEWHERE}",
    ),
    Fault(
        Kind.MACHINE,
        ("uncorrectable ECC error", "uncorrectable NVLink error", "hardware stack error", "Invalid access of peer GPU"),
        f"{_DEVICE}the GPU reports a fault of its hardware; `dmesg | grep Xid` tells which: restart the machine, or "
        f"{_ELSEWHERE}",
    ),
    Fault(
        Kind.MACHINE,
        ("the launch timed out and was terminated",),
        f"{_DEVICE}the system ended a kernel that took long, as it does on a GPU with a screen; make data.batch_size "
        f"smaller, or {_ELSEWHERE}",
    ),
    Fault(
        Kind.MACHINE,
        ("system not yet initialized", "CUDA unknown error", "CUDA error: initialization error"),
        f"{_DEVICE}CUDA does not start; see whether nvidia-smi works (several linked GPUs need the service "
        "nvidia-fabricmanager), restart the machine, or use trainer.device=cpu",
    ),
    Fault(
        Kind.MACHINE,
        ("MPS client", "MPS server"),  # NVIDIA's, not Apple's
        f"{_DEVICE}the NVIDIA service that shares the GPU (MPS) does not answer; restart it, or {_ELSEWHERE}",
    ),
    Fault(
        Kind.MACHINE,
        ("NCCL error", "NCCL Error", "ncclSystemError", "ncclRemoteError", "ncclUnhandledCudaError"),
        "NCCL: the processes cannot exchange between their GPUs; NCCL_DEBUG=INFO tells why: a small /dev/shm in a "
        "container (--shm-size=1g), a network that NCCL_SOCKET_IFNAME must name, or a process that has ended",
    ),
    Fault(
        Kind.MACHINE,
        ("can't start new thread",),  # Python's
        "the system gives this process no further thread: its memory or the number of its processes is used up "
        "(ulimit -v, ulimit -u); raise the limit, or set data.workers and trainer.threads lower",
    ),
    Fault(
        Kind.MACHINE,
        ("CUDA error: unspecified launch failure", "CUDA error: unknown error", "CUBLAS_STATUS_INTERNAL_ERROR"),
        f"{_DEVICE}the GPU or its driver failed without a reason; `dmesg | grep Xid` may know one: try once more, then "
        f"{_ELSEWHERE}",
    ),
    Fault(
        Kind.KERNEL,
        ("device-side assert triggered", "an illegal memory access was encountered", "misaligned address"),
        "the GPU met a wrong index or address, as of a label beyond the classes in a network or loss of yours; "
        "CUDA_LAUNCH_BLOCKING=1 before the command tells the line",
    ),
)


def fault_of(error: BaseException) -> Fault | None:
    """The line of the table that an error is, whoever raised it; None where it is no fault of the machine."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # of torch, known by name
        return FAULTS[0]
    if not isinstance(error, RuntimeError):  # which all of torch's are, those of its backends and devices too
        return None
    text = f"{error}\n"
    return next((fault for fault in FAULTS if any(phrase in text for phrase in fault.phrases)), None)


_COMPILERS = ("torch._dynamo.", "torch._inductor.", "triton.")
_NOT_REPEATABLE = " does not have a deterministic implementation"  # behind the name of an operation


def refused_setting(error: BaseException) -> str | None:
    """The line of an error by which torch says that it cannot do here what a setting asks of it; None for others."""
    if _NOT_REPEATABLE in str(error):
        what = one_line(error).partition(_NOT_REPEATABLE)[0].removeprefix("RuntimeError: ")
        return (
            f"trainer.deterministic: torch has no repeatable algorithm for {what} here (given True); set "
            "trainer.deterministic=false, or choose a network, augmentation and loss without it"
        )
    if any(f"{kind.__module__}.".startswith(_COMPILERS) for kind in type(error).__mro__):
        return f"trainer.compile: torch cannot compile this network here ({one_line(error)}); set trainer.compile=false"
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch or Python found no memory, on whatever device."""
    fault = fault_of(error)
    return fault is not None and fault.kind is Kind.MEMORY


def exit_code_of(error: BaseException) -> int:
    """The exit code that a command answers to an error, for a process that may not come so far; 1 for our own bugs."""
    if isinstance(error, CnntrainError):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return 128 + signal.SIGINT
    if (fault := fault_of(error)) and fault.kind is not Kind.KERNEL:
        return ResourceError.exit_code
    if refused_setting(error):
        return ConfigError.exit_code
    if isinstance(error, OSError):
        return FileSystemError.exit_code
    return ConfigError.exit_code if line_in_user_code(error) else 1
