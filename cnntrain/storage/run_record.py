"""What a run folder says of its run, as files that people and programs read.

    config.yaml        the resolved config               overrides.yaml   the words of the command line, a list
    command.txt        one line per start or resume      environment.json versions, git state, classes, run id
    results.json       the scores, when the run is done

Nothing here imports torch.
"""

import contextlib
import importlib.metadata
import json
import math
import os
import platform
import re
import socket
import uuid
from datetime import datetime
from pathlib import Path
from typing import Any

import cnntrain
from cnntrain.config.advice import advise_run
from cnntrain.errors import CheckpointError, ConfigError, FileSystemError
from cnntrain.storage import git
from cnntrain.storage.atomic import file_system_error, read_own, write_atomic

CONFIG, OVERRIDES, COMMAND = "config.yaml", "overrides.yaml", "command.txt"
ENVIRONMENT, RESULTS, SPLITS = "environment.json", "results.json", "splits.csv"


def describe(folder: Path, *, config_yaml: str, overrides: list[str], command: str, **facts: Any) -> str:
    """Write down what is about to run; on a resume, add to what stands there.

    `config.yaml` comes last: where it stands, the rest stands too, and a run killed before its first save can start
    again from it.

    Args:
        command: the exact command line, quoted for the shell.
        facts: more plain values for environment.json, such as `device="cpu"`.

    Returns:
        The run id: made here, kept on a resume.

    Raises:
        FileSystemError: the folder cannot be written.
        CheckpointError: the folder's environment.json is damaged.
    """
    before = read_environment(folder)
    earlier_times = times if isinstance(times := before.get("resumed"), list) else []
    first = {"run_id": uuid.uuid4().hex[:12], "started": now()}
    environment = {
        **before,
        **({"resumed": [*earlier_times, now()]} if run_id(folder) else first),
        **_environment(),
        **facts,
    }
    earlier = _text(folder / OVERRIDES).replace("[]\n", "")
    words = "".join(f"- {json.dumps(word, ensure_ascii=False)}\n" for word in overrides)
    write_atomic(folder / COMMAND, _text(folder / COMMAND) + command + "\n")
    write_atomic(folder / OVERRIDES, earlier + words or "[]\n")
    _write_json(folder / ENVIRONMENT, environment)
    write_atomic(folder / CONFIG, config_yaml)
    return str(environment["run_id"])


def complete(folder: Path, **facts: Any) -> None:
    """Add what is known only later, such as `classes` and `data_fingerprint`, to environment.json."""
    _write_json(folder / ENVIRONMENT, {**read_environment(folder), **facts})


def run_id(folder: Path) -> str:
    """The id that `describe` gave to the run in this folder; empty where none is known."""
    identity = read_environment(folder).get("run_id")
    return identity if isinstance(identity, str) else ""


def give_id(folder: Path, known: str | None) -> None:
    """Write down the id of a run whose environment.json is gone: the one that its checkpoints know, else a new one."""
    complete(folder, run_id=known or uuid.uuid4().hex[:12])


def read_config(folder: Path) -> dict[str, Any]:
    """The resolved config of the run in this folder.

    Raises:
        CheckpointError: there is no run.
        ConfigError: its config.yaml is no mapping.
    """
    import yaml  # type: ignore[import-untyped]

    path = folder / CONFIG
    if not path.is_file():
        advice = advise_run(folder) or "give one such as outputs/DATA/MODEL/DATE_TIME"
        raise CheckpointError(f"{folder}: no run there ({CONFIG} is missing); {advice}")
    try:
        content = yaml.safe_load(_text(path, follow=True))
    except (yaml.YAMLError, RecursionError, ValueError) as error:  # of brackets, and of numbers without an end
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{path}: no readable YAML ({reason}); correct it or restore a copy") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: holds no settings; correct it or restore a copy")
    return content


def read_environment(folder: Path) -> dict[str, Any]:
    """The content of environment.json, empty where there is none; CheckpointError where it is damaged."""
    path = folder / ENVIRONMENT
    try:
        content = json.loads(_text(path) or "{}")
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: damaged, no JSON object; remove the file and try again")
    return content


def write_results(folder: Path, results: dict[str, Any]) -> None:
    """Write results.json; NaN and infinity, which JSON has not, become null."""
    _write_json(folder / RESULTS, _finite(results))


def read_results(folder: Path) -> dict[str, Any]:
    """The content of results.json; empty where there is none that can be read."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        content = json.loads(read_own(folder / RESULTS))
        return content if isinstance(content, dict) else {}
    return {}


def is_done(folder: Path) -> bool:
    """Whether the run has come to its end, and nobody has resumed it since."""
    return read_results(folder).get("status") == "done"


def discard_results(folder: Path) -> None:
    """Remove results.json, if there is one."""
    try:
        (folder / RESULTS).unlink(missing_ok=True)
    except OSError as error:
        raise file_system_error(folder / RESULTS, error, what="cannot be removed") from error


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_atomic(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _text(path: Path, *, follow: bool = False) -> str:
    try:
        return read_own(path, follow=follow).decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        return ""
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else error
        advice = "restore a copy" if path.name == CONFIG else "make it a file that can be read, or remove it"
        raise FileSystemError(f"{path}: cannot be read ({reason}); {advice}") from error


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def now() -> str:
    """The time of day with its zone, to the second."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def _dependencies() -> list[str]:
    """What the installed distribution needs to run, by name; torch alone where cnntrain is not installed."""
    try:
        needs = importlib.metadata.requires("cnntrain") or []
    except importlib.metadata.PackageNotFoundError:
        needs = ["torch"]
    return [re.split(r"[^\w.-]", need, maxsplit=1)[0] for need in needs if "extra ==" not in need]


def _environment() -> dict[str, Any]:
    versions = {"python": platform.python_version(), "cnntrain": cnntrain.__version__}
    for name in _dependencies():
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    cores = len(affinity(0)) if affinity else os.cpu_count()
    return {
        "versions": versions,
        "platform": platform.platform(),
        "host": socket.gethostname(),
        "cpu_count": cores,
        "working_folder": os.getcwd(),
        "git": _git_state(),
    }


def _git_state() -> dict[str, Any] | None:
    """Commit of the current folder's repository, else of the checkout that cnntrain runs from, else None."""
    checkout = Path(cnntrain.__file__).resolve().parent.parent
    return git.state(Path.cwd()) or (git.state(checkout) if (checkout / ".git").exists() else None)
