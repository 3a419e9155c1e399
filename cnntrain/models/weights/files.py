"""Files that hold weights: of safetensors, of torch, and the checkpoints of runs."""

import argparse
import json
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from cnntrain.config.paths import WEIGHTS, need_weights
from cnntrain.errors import CheckpointError, UnsafeError
from cnntrain.storage import checkpoint, state_form
from cnntrain.storage.manifest import MANIFEST, STATE
from cnntrain.text import few, one_line, printable

AVERAGED = re.compile(r"(?:^|[._])(?:ema|averaged|teacher)(?:[._]|$)", re.IGNORECASE)
_TORCH_MAGIC = (b"PK\x03\x04", b"\x80")  # a zip archive, and the pickle of before torch 1.6
_NOT_WEIGHTS = re.compile("optim|sched|scaler", re.IGNORECASE)


def content_of(path: Path) -> dict[str, Any]:
    """What a file of weights holds, or the checkpoint of a run: tensors by name, or containers around them.

    Args:
        path: a .safetensors file, a file of torch.save, a checkpoint folder, its state.pt, or a run folder.

    Raises:
        CheckpointError: it is not there, damaged, or of another kind.
        UnsafeError: it holds code.
    """
    need_weights(path)
    try:
        if path.is_dir() or (path.name == STATE and (path.parent / MANIFEST).exists()):
            return checkpoint.load(checkpoint.find(path))
        if path.suffix == ".safetensors":
            return _safetensors(path)
        with open(path, "rb") as file:
            begin = file.read(4)
        if begin.startswith(_TORCH_MAGIC):
            content = checkpoint.read_tensors(path, _tensors_alone(path), _harmless())
            if is_run(content) and (place := state_form.fault(content)):
                raise CheckpointError(f"{printable(path)}: no {place} in it as cnntrain writes it; give {WEIGHTS}")
            return content
    except (CheckpointError, UnsafeError) as error:
        raise type(error)(f"model.weights: {error}") from error
    except OSError as error:
        raise CheckpointError(
            f"model.weights: {printable(path)} cannot be read ({one_line(error)}); give {WEIGHTS}"
        ) from error
    what = "is no file of weights" if begin else "is empty"
    raise CheckpointError(f"model.weights: {printable(path)} {what}; give {WEIGHTS}")


def is_run(content: Mapping[str, Any]) -> bool:
    """Whether it is the state of a run of ours."""
    about = content.get("about")
    return isinstance(about, dict) and {"config", "classes", "mean", "std"} <= about.keys() and "model" in content


def state_dict_of(content: Mapping[str, Any], path: Path, say: Callable[[str], None]) -> dict[str, Tensor]:
    """The tensors of one network out of what a foreign file holds: the averaged one where it is as whole as the others.

    Args:
        say: takes a line where there was a choice.

    Raises:
        CheckpointError: there are no tensors.
    """
    networks = dict(_networks(content))
    if not networks:
        raise CheckpointError(f"model.weights: {printable(path)} holds no tensors; give {WEIGHTS}")
    sizes = {place: len(tensors) for place, tensors in networks.items()}
    largest = max((size for place, size in sizes.items() if not AVERAGED.search(place)), default=0)
    # An average without the statistics of batch norms is smaller than its network, and of no use alone.
    averaged = [place for place, size in sizes.items() if AVERAGED.search(place) and size >= largest]
    best = averaged[0] if averaged else max(sizes, key=lambda place: sizes[place])
    if others := [place for place, size in sizes.items() if place != best and 2 * size > largest]:
        kind = ", averaged weights," if averaged else ""
        say(f"{printable(path)} holds several networks: {best!r}{kind} is taken, not {few(map(repr, others))}")
    return networks[best]


def _networks(content: Mapping[Any, Any], place: str = "") -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Every dict that holds tensors itself, with its dotted place, but for the state of optimizers and the like."""
    tensors = {str(key): value.detach() for key, value in content.items() if isinstance(value, Tensor)}
    if tensors:
        yield place, tensors
    for key, value in content.items():
        if isinstance(value, dict) and not _NOT_WEIGHTS.search(str(key)):
            yield from _networks(value, f"{place}.{key}" if place else str(key))


def _tensors_alone(path: Path) -> str:
    """What to do about a whole pickled network: only a program that runs its code can take the tensors out of it."""
    source, target = (json.dumps(str(name), ensure_ascii=False) for name in (path, path.with_name("tensors.pt")))
    # Not run here: what is proposed is for the user to run, who alone can know whether the file is to be trusted.
    program = f"import torch; torch.save(torch.load({source}, weights_only=False).state_dict(), {target})"
    return (
        "if it is a whole network that you trust, store its tensors where its code is at hand, and give that file: "
        f"python -c {shlex.quote(program)}"
    )


def _safetensors(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"{printable(path)} is damaged or no safetensors ({error}); get it anew") from error


def _harmless() -> list[Any]:
    """Beside tensors, what training scripts leave in their files: their arguments, and scores as numbers of NumPy."""
    import numpy as np

    scalar = np.float64(0).__reduce__()[0]  # named by another module since NumPy 2
    names = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
    kinds = [type(np.dtype(code)) for code in ("f4", "f8", "i8")]
    return [argparse.Namespace, np.dtype, *kinds, *((scalar, name) for name in names)]
