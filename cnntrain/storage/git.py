"""The state of a git repository, asked for in a way that runs nothing of that repository.

Its settings may name programs (filters, hooks, a file system monitor, those of submodules), and a folder in which a run
is started may be a stranger's. So its work tree is compared from a repository folder of our own, which borrows the
index and the objects and has no settings: no filter is known there.
"""

import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SECONDS = 5  # after which an answer of git is not waited for
# How the files were written, which decides whether they are the same; no program is among these settings.
HARMLESS = r"^core\.(autocrlf|eol|filemode|ignorecase|symlinks)$"


def state(folder: Path) -> dict[str, Any] | None:
    """The commit of a folder's repository, and whether tracked files differ from it (None: git cannot tell).

    Files that a filter has rewritten (git-lfs) count as different once they were touched.

    Returns:
        "folder", "commit" and "dirty"; None where there is no repository, no git, or it is another user's.
    """
    commit = _git(folder, "rev-parse", "HEAD")
    return {"folder": str(folder), "commit": commit, "dirty": _is_dirty(folder, commit)} if commit else None


def _is_dirty(folder: Path, commit: str) -> bool | None:
    answer = _git(folder, "rev-parse", "--show-toplevel", "--git-path", "index", "--git-path", "objects")
    settings = _git(folder, "config", "--get-regexp", HARMLESS)
    if answer is None:
        return None
    top, index, objects = (str(folder / line) for line in answer.splitlines())
    words = [word for line in (settings or "").splitlines() for word in ("-c", line.replace(" ", "=", 1))]
    with tempfile.TemporaryDirectory(prefix="cnntrain-git-") as own:
        for name in ("refs", "objects"):
            os.mkdir(os.path.join(own, name))
        Path(own, "HEAD").write_text(commit + "\n")
        if len(commit) == 64:
            Path(own, "config").write_text("[core]\nrepositoryformatversion = 1\n[extensions]\nobjectformat = sha256\n")
        borrowed = {"GIT_DIR": own, "GIT_WORK_TREE": top, "GIT_INDEX_FILE": index, "GIT_OBJECT_DIRECTORY": objects}
        # The user's own settings may name filters too, which the repository's files would choose.
        nobodys = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "GIT_ATTR_NOSYSTEM": "1"}
        status = ("status", "--porcelain", "--untracked-files=no", "--ignore-submodules=all", "--no-renames")
        changes = _git(Path(top), *words, *status, variables=borrowed | nobodys)
    return None if changes is None else bool(changes)


def _git(folder: Path, *words: str, variables: Mapping[str, str] | None = None) -> str | None:
    """What git prints; None where it fails. Of the variables that steer git none comes from outside."""
    steady = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    # Nor is a program called git run that lies in the current folder, where the search path would lead there.
    steady["PATH"] = os.pathsep.join(filter(os.path.isabs, os.get_exec_path()))
    environment = {**steady, "GIT_OPTIONAL_LOCKS": "0", "GIT_NO_LAZY_FETCH": "1", **(variables or {})}
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), "-c", "core.fsmonitor=false", *words],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            env=environment,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
