"""What a run notes of the git repository that it is started in, and what it never runs."""

import os
import subprocess
from pathlib import Path

import pytest

from cnntrain.storage import git

IDENTITY = ("-c", "user.name=me", "-c", "user.email=me@example.org", "-c", "commit.gpgsign=false")


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one commit of two files, the current folder."""
    folder = tmp_path / "repository"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name in ("a.txt", "b.txt"):
        (folder / name).write_text("1\n")
    run("init", "-q")
    run("add", ".")
    run(*IDENTITY, "commit", "-q", "-m", "one")
    return folder


def run(*words: str) -> None:
    subprocess.run(["git", *words], check=True)


def dirty(folder: Path) -> object:
    found = git.state(folder)
    assert found is not None
    return found["dirty"]


def test_commit_and_changes_are_found(repository: Path) -> None:
    found = git.state(repository)
    assert found is not None
    assert (len(found["commit"]), found["dirty"], found["folder"]) == (40, False, str(repository))
    (repository / "untracked.txt").write_text("1")
    assert dirty(repository) is False
    (repository / "a.txt").write_text("1\n")  # touched, and as it was
    assert dirty(repository) is False
    (repository / "a.txt").write_text("2\n")
    assert dirty(repository) is True
    run("add", "a.txt")
    assert dirty(repository) is True
    (repository / "below").mkdir()
    assert dirty(repository / "below") is True


def test_other_forms_of_repositories_work_too(repository: Path, tmp_path: Path) -> None:
    run("worktree", "add", "-q", str(tmp_path / "tree"))
    assert dirty(tmp_path / "tree") is False
    (tmp_path / "tree" / "a.txt").unlink()
    assert dirty(tmp_path / "tree") is True
    run("clone", "-q", "--shared", str(repository), str(tmp_path / "clone"))
    assert dirty(tmp_path / "clone") is False
    run("config", "core.fileMode", "false")
    (repository / "b.txt").chmod(0o755)
    assert dirty(repository) is False
    run("init", "-q", "--object-format=sha256", str(tmp_path / "sha256"))
    run("-C", str(tmp_path / "sha256"), *IDENTITY, "commit", "-q", "--allow-empty", "-m", "one")
    assert dirty(tmp_path / "sha256") is False


def test_nothing_of_a_repository_is_run(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\necho $0 $* >> {tmp_path}/ran\ncat\n")
    program.chmod(0o755)
    for hook in ("post-index-change", "fsmonitor-watchman", "post-checkout", "reference-transaction"):
        (repository / ".git/hooks").mkdir(exist_ok=True)
        (repository / ".git/hooks" / hook).symlink_to(program)
    run("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(repository), "sub")
    run(*IDENTITY, "commit", "-q", "-m", "two")
    (tmp_path / "ran").unlink(missing_ok=True)
    for place in (".", "sub"):
        for key in ("filter.x.clean", "filter.x.smudge", "filter.x.process", "core.fsmonitor", "core.pager"):
            run("-C", place, "config", key, str(program))
        for key in ("diff.x.command", "diff.x.textconv", "diff.external", "core.sshCommand", "alias.status"):
            run("-C", place, "config", key, f"!{program}" if key.startswith("alias") else str(program))
        run("-C", place, "config", "filter.x.required", "true")
        for file in (".gitattributes", "a.txt"):
            (repository / place / file).write_text("* filter=x diff=x\n")
    (repository / ".git/info/attributes").write_text("* filter=x diff=x\n")
    os.utime(repository / "b.txt")  # the index no longer knows that it is the same
    assert dirty(repository) is True
    assert not (tmp_path / "ran").exists()

    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))  # as in a hook that starts a run
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "core.fsmonitor")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", str(program))
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", str(program))
    monkeypatch.setenv("GIT_TRACE", str(tmp_path / "ran"))
    assert dirty(repository) is True
    assert not (tmp_path / "ran").exists()
    assert [entry.name for entry in (repository / ".git").glob("*.lock")] == []


def test_a_program_called_git_in_the_current_folder_is_not_run(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository / "git").write_text("#!/bin/sh\necho 5a5a5a\n")
    (repository / "git").chmod(0o755)
    for first in ("", "."):
        monkeypatch.setenv("PATH", os.pathsep.join([first, os.environ["PATH"]]))
        assert dirty(repository) is False


def test_filters_of_the_users_own_are_not_run_either(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home/.gitconfig").write_text(f'[filter "x"]\n\tclean = touch {tmp_path}/ran; cat\n')
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (repository / ".git/info/attributes").write_text("* filter=x\n")
    (repository / "a.txt").write_text("1\n")
    run("status", "--porcelain")
    assert (tmp_path / "ran").exists()  # so it works
    (tmp_path / "ran").unlink()
    os.utime(repository / "a.txt")
    assert dirty(repository) is False
    assert not (tmp_path / "ran").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_repository_of_another_user_is_left_alone(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(repository.parent))  # without a safe.directory of the user's
    os.chown(repository, 4242, 4242)
    os.chown(repository / ".git", 4242, 4242)
    assert git.state(repository) is None


def test_a_repository_without_a_commit_and_a_folder_without_one_have_no_state(tmp_path: Path) -> None:
    run("init", "-q", str(tmp_path))
    assert git.state(tmp_path) is None
    assert git.state(tmp_path / "missing") is None
