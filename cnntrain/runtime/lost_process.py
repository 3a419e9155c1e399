"""Another process of the run is gone: how torch says so, and the one line of it for the user. Nothing imports torch."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from cnntrain.errors import CnntrainError, ConfigError, ResourceError
from cnntrain.runtime.faults import Kind, fault_of

WORDS = re.compile(r"gloo|NCCL|[Cc]onnection (closed|reset|refused)|Broken pipe|ProcessGroup")  # of torch's backends
OF_ANOTHER = re.compile(r"[Rr]emote|[Cc]onnection|Broken pipe|[Tt]imed? ?out")  # in a fault of NCCL


class LostError(ResourceError):
    """Another process has ended; it, or who has started both, knows why."""


@contextmanager
def answered() -> Iterator[None]:
    """An exchange that ends, where another process is lost, with the error that says so.

    Raises:
        LostError: another process has ended.
        ResourceError: this one's machine has failed.
        ConfigError: two processes have the same GPU.
    """
    try:
        yield
    except RuntimeError as error:  # whatever the backend, its faults are of this class
        raise error_of(error) from error


def error_of(error: RuntimeError) -> CnntrainError:
    """What an error of torch's exchanges means to the user."""
    if "Duplicate GPU" in str(error):
        return ConfigError(
            "trainer.device: several processes were given the same GPU; start as many processes as there are GPUs, or "
            "use trainer.device=cpu"
        )
    fault = fault_of(error)
    if fault and fault.kind is Kind.MACHINE and not OF_ANOTHER.search(str(error)):
        return ResourceError(fault.line)  # all processes may have met it, and none has another message
    reason = re.sub(r"^\[.*?\] *", "", str(error)).strip().partition("\n")[0].partition(". ")[0]  # not where in C++
    return LostError(f"another process of this run has ended or cannot be reached ({reason}); its own message says why")
