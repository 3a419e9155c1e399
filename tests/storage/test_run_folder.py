"""Run folders: made once, owned by one process, and told in full."""

import errno
import fcntl
import importlib.metadata
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
import yaml  # type: ignore[import-untyped]

import cnntrain
from cnntrain.errors import CheckpointError, ConfigError, FileSystemError, RunFolderError
from cnntrain.storage import atomic, run_folder, run_record

ROOT = str(Path(cnntrain.__file__).parent.parent)
IS_INSTALLED = any(found.metadata["Name"] == "cnntrain" for found in importlib.metadata.distributions())
needs_installation = pytest.mark.skipif(not IS_INSTALLED, reason="a checkout on Python's path has no requirements")


def python(code: str, *words: str) -> "subprocess.Popen[str]":
    """Start another Python process that can import cnntrain."""
    environment = {**os.environ, "PYTHONPATH": ROOT}
    command = [sys.executable, "-c", code, *words]
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


# --- making ---


def test_a_free_name_is_taken_as_it_is_and_its_parents_are_made(tmp_path: Path) -> None:
    folder = run_folder.reserve(tmp_path / "digits" / "lenet5" / "2030-01-01_12-00-00")
    assert folder == tmp_path / "digits" / "lenet5" / "2030-01-01_12-00-00"
    assert list(folder.iterdir()) == []


def test_20_threads_in_the_same_second_get_20_folders(tmp_path: Path) -> None:
    start = Barrier(20)

    def reserve(_: int) -> Path:
        start.wait()
        return run_folder.reserve(tmp_path / "runs" / "now")

    with ThreadPoolExecutor(20) as pool:
        folders = set(pool.map(reserve, range(20)))
    assert folders == {tmp_path / "runs" / name for name in ["now", *(f"now-{i}" for i in range(2, 21))]}


def test_5_processes_in_the_same_second_get_5_folders(tmp_path: Path) -> None:
    code = """if True:
        import sys, pathlib
        from cnntrain.storage.run_folder import reserve
        print("ready", flush=True); sys.stdin.readline()
        for _ in range(20): print(reserve(pathlib.Path(sys.argv[1])))
    """
    children = [python(code, str(tmp_path / "now")) for _ in range(5)]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    folders = [line for child in children for line in child.communicate("go\n")[0].split()]
    assert len(folders) == len(set(folders)) == 100


@pytest.mark.parametrize("name", ["with space", "ünïcode", "a=b", "new\nline"])
def test_unusual_names_work(tmp_path: Path, name: str) -> None:
    folder = run_folder.reserve(tmp_path / name)
    run_record.describe(folder, config_yaml="seed: 0\n", overrides=[], command="cnntrain")
    with run_folder.lock(folder):
        run_record.write_results(folder, {"status": "done"})


def test_a_file_in_the_way_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "outputs").write_text("a file")
    for make in (run_folder.reserve, run_folder.claim):
        with pytest.raises(FileSystemError, match=r"outputs.*(Not a directory|File exists).*a file is in the way"):
            make(tmp_path / "outputs" / "digits" / "now")


def test_a_name_too_long_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(FileSystemError, match=r"File name too long.*shorter name with out=DIR"):
        run_folder.reserve(tmp_path / ("x" * 300))


def test_a_read_only_place_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(FileSystemError, match=r"now: .*Read-only file system\); choose another place with"):
        run_folder.reserve(tmp_path / "now")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_of_another_user_is_one_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(
        FileSystemError, match=r"Permission denied\); make it one that you may write, or choose another place with"
    ):
        run_folder.reserve(tmp_path / "now")


def test_a_folder_that_holds_a_run_is_refused_with_two_ways_out(tmp_path: Path) -> None:
    run = run_folder.claim(tmp_path / "my run")
    assert run_folder.claim(run) == run  # empty: free to take
    run_record.describe(run, config_yaml="seed: 0\n", overrides=[], command="cnntrain")
    rule = "holds a run already; resume it by `cnntrain resume '.*my run'`, or choose"
    with pytest.raises(RunFolderError, match=rule):
        run_folder.claim(run)


# --- owning ---

HOLD = """if True:
    import sys, pathlib
    from cnntrain.storage.run_folder import lock
    with lock(pathlib.Path(sys.argv[1])):
        print("held", flush=True); sys.stdin.readline()
"""


@pytest.fixture
def owner(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """Another process that owns the folder."""
    with python(HOLD, str(tmp_path)) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        yield child
        child.kill()


def test_a_second_process_is_refused_and_told_who_is_there(tmp_path: Path, owner: "subprocess.Popen[str]") -> None:
    rule = rf"in use by pid {owner.pid} on host \S+ since \S+T\S+; wait for it"
    with pytest.raises(RunFolderError, match=rule) as caught, run_folder.lock(tmp_path):
        pass
    assert caught.value.exit_code == 9
    assert f"pid {owner.pid} " in (tmp_path / "run.lock").read_text()
    assert run_folder.is_in_use(tmp_path)


def test_the_lock_ends_with_its_block(tmp_path: Path, owner: "subprocess.Popen[str]") -> None:
    owner.communicate("go\n")
    assert not run_folder.is_in_use(tmp_path)
    for _ in range(2):
        with run_folder.lock(tmp_path):
            assert f"pid {os.getpid()} on host" in (tmp_path / "run.lock").read_text()
            with pytest.raises(RunFolderError), run_folder.lock(tmp_path):
                pass


def test_the_lock_of_a_killed_process_never_blocks(tmp_path: Path, owner: "subprocess.Popen[str]") -> None:
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    with run_folder.lock(tmp_path):
        pass


def test_a_file_system_without_locks_is_said_and_does_not_stop_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    lines: list[str] = []
    with run_folder.lock(tmp_path, lines.append):
        pass
    assert len(lines) == 1
    assert "no locks" in lines[0]


# --- describing ---


@needs_installation
def test_the_folder_tells_config_command_versions_and_state(tmp_path: Path) -> None:
    command = "cnntrain model=resnet18 'data.root=/my data'"
    words = ["model=resnet18", "data.root='/my data'"]
    known = run_record.describe(tmp_path, config_yaml="seed: 3\n", overrides=words, command=command)
    assert run_record.read_config(tmp_path) == {"seed": 3}
    assert yaml.safe_load((tmp_path / "overrides.yaml").read_text()) == words
    assert (tmp_path / "command.txt").read_text() == command + "\n"
    environment = json.loads((tmp_path / "environment.json").read_text())
    assert environment["run_id"] == run_record.run_id(tmp_path) == known
    assert environment["versions"]["cnntrain"] == cnntrain.__version__
    assert {"python", "torch", "torchvision", "hydra-core", "omegaconf"} <= set(environment["versions"])
    assert {"platform", "host", "cpu_count", "started", "git", "working_folder"} <= set(environment)


def versions(folder: Path) -> dict[str, str]:
    folder.mkdir()
    run_record.describe(folder, config_yaml="", overrides=[], command="cnntrain")
    return run_record.read_environment(folder)["versions"]


@needs_installation
def test_the_versions_are_those_of_all_that_the_distribution_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted = versions(tmp_path / "installed")
    assert {"timm", "simplejpeg", "safetensors", "huggingface-hub"} <= set(noted)
    assert noted["timm"] == importlib.metadata.version("timm")
    assert not {"pytest", "mypy", "cosmic-ray"} & set(noted)

    def requires(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", requires)
    assert set(versions(tmp_path / "checkout")) == {"python", "cnntrain", "torch"}


def test_later_facts_join_the_first_ones(tmp_path: Path) -> None:
    known = run_record.describe(tmp_path, config_yaml="", overrides=[], command="cnntrain", device="cpu")
    run_record.complete(tmp_path, classes=["cat", "dög"], data_fingerprint="ab")
    environment = run_record.read_environment(tmp_path)
    assert (environment["run_id"], environment["device"]) == (known, "cpu")
    assert (environment["classes"], environment["data_fingerprint"]) == (["cat", "dög"], "ab")


def test_a_resume_adds_to_the_story_and_keeps_the_run_id(tmp_path: Path) -> None:
    first = run_record.describe(tmp_path, config_yaml="a: 1\n", overrides=["a=1"], command="cnntrain a=1", device="cpu")
    started = run_record.read_environment(tmp_path)["started"]
    again = run_record.describe(tmp_path, config_yaml="a: 2\n", overrides=["a=2"], command="cnntrain resume . a=2")
    environment = run_record.read_environment(tmp_path)
    assert again == first
    assert (environment["started"], len(environment["resumed"]), environment["device"]) == (started, 1, "cpu")
    assert (tmp_path / "command.txt").read_text() == "cnntrain a=1\ncnntrain resume . a=2\n"
    assert yaml.safe_load((tmp_path / "overrides.yaml").read_text()) == ["a=1", "a=2"]
    assert run_record.read_config(tmp_path) == {"a": 2}


def test_no_overrides_are_an_empty_list_also_after_a_resume(tmp_path: Path) -> None:
    for _ in range(2):
        run_record.describe(tmp_path, config_yaml="", overrides=[], command="cnntrain")
        assert yaml.safe_load((tmp_path / "overrides.yaml").read_text()) == []


def test_the_commit_and_changes_of_the_current_folder_are_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.yaml").write_text("1")
    identity = ["-c", "user.name=me", "-c", "user.email=me@example.org", "-c", "commit.gpgsign=false"]
    for words in (["init", "-q"], ["add", "my.yaml"], [*identity, "commit", "-q", "-m", "one"]):
        subprocess.run(["git", *words], check=True)
    run = run_folder.reserve(tmp_path / "run")
    run_record.describe(run, config_yaml="", overrides=[], command="cnntrain")
    git = run_record.read_environment(run)["git"]
    assert (len(git["commit"]), git["dirty"], git["folder"]) == (40, False, str(tmp_path))
    (tmp_path / "my.yaml").write_text("2")
    run_record.describe(run, config_yaml="", overrides=[], command="cnntrain")
    assert run_record.read_environment(run)["git"]["dirty"] is True


def test_a_machine_without_git_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    run_record.describe(tmp_path, config_yaml="", overrides=[], command="cnntrain")
    assert run_record.read_environment(tmp_path)["git"] is None


def test_a_folder_without_a_run_or_with_a_broken_config_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no run there \(config.yaml is missing\); give one"):
        run_record.read_config(tmp_path)
    for content, rule in [("a: [1\n", "no readable YAML"), ("- 1\n", "holds no settings")]:
        (tmp_path / "config.yaml").write_text(content)
        with pytest.raises(ConfigError, match=rule) as caught:
            run_record.read_config(tmp_path)
        assert "\n" not in str(caught.value)


def test_a_damaged_environment_is_named(tmp_path: Path) -> None:
    (tmp_path / "environment.json").write_text('{"run_id": ')
    with pytest.raises(CheckpointError, match=r"environment.json: damaged.*remove the file"):
        run_record.read_environment(tmp_path)


def test_results_are_json_that_every_reader_takes(tmp_path: Path) -> None:
    results = {"status": "done", "val": {"top1": 0.5, "loss": float("nan")}, "all": [float("inf"), 1, None]}
    run_record.write_results(tmp_path, results)
    read = json.loads((tmp_path / "results.json").read_text(), parse_constant=pytest.fail)
    assert read == {"status": "done", "val": {"top1": 0.5, "loss": None}, "all": [None, 1, None]}


def test_a_lock_that_cannot_be_written_is_not_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", refuse)
    with pytest.raises(FileSystemError, match=r"run\.lock: .*free some space"), run_folder.lock(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_a_file_system_that_takes_no_further_file_is_not_called_full(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    few, many = (str(atomic.file_system_error(tmp_path / "a", full, needed=needed)) for needed in (1, 2**60))
    assert "are free, but the file system may take no further file" in few
    assert "no further file" not in many


# --- files ---


@pytest.mark.parametrize("name", ["open", "fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def refuse(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "results.json"
    atomic.write_atomic(path, "old")
    with monkeypatch.context() as patch:
        patch.setattr(os, name, refuse)
        with pytest.raises(FileSystemError, match=r"results\.json: .*No space left.*free some space"):
            atomic.write_atomic(path, "new")
    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [("results.json", "old")]


def test_a_planted_link_does_not_lead_a_write_elsewhere(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / f".tmp-{os.getpid()}-a.txt").symlink_to(victim)
    with pytest.raises(FileSystemError):
        atomic.write_atomic(tmp_path / "a.txt", "new")
    (tmp_path / "run.lock").symlink_to(victim)
    with pytest.raises(FileSystemError), run_folder.lock(tmp_path):
        pass
    assert victim.read_text() == "mine"


def test_words_that_are_no_utf_8_survive(tmp_path: Path) -> None:
    word = os.fsdecode(b"data.root=/caf\xe9")
    run_record.describe(tmp_path, config_yaml="", overrides=[word], command=f"cnntrain {word}")
    run_record.describe(tmp_path, config_yaml="", overrides=[], command="cnntrain resume")
    assert (tmp_path / "command.txt").read_bytes() == b"cnntrain data.root=/caf\xe9\ncnntrain resume\n"


def test_the_run_folder_is_there_without_torch() -> None:
    modules = "cnntrain.storage.run_folder, cnntrain.runtime.signals, cnntrain.storage.manifest"
    child = python(f"import sys, {modules}; print('torch' in sys.modules)")
    assert child.communicate()[0] == "False\n"


def test_a_folder_with_files_of_the_users_that_a_run_would_write_over_is_refused(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("mine")
    with pytest.raises(RunFolderError, match=r"holds a file called metrics\.csv"):
        run_folder.claim(tmp_path)
    assert (tmp_path / "metrics.csv").read_text() == "mine"


def test_names_that_no_encoding_has_are_written_all_the_same(tmp_path: Path) -> None:
    names = "a name of a file \udcff, of a stranger's checkpoint \ud800\n"
    atomic.write_atomic(tmp_path / "whole.csv", names)
    with atomic.StreamedFile(tmp_path / "parts.csv") as file:
        file.write(names)
    for path in tmp_path.iterdir():
        assert path.read_bytes() == b"a name of a file \xff, of a stranger's checkpoint \xef\xbf\xbd\n"


def test_a_file_that_was_finished_while_another_process_waited_for_its_lock_stays_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, flock, first = tmp_path / "whole.bin", fcntl.flock, atomic.StreamedFile(tmp_path / "whole.bin", alone=True)
    first.__enter__()
    first.write(b"first")

    def finish(handle: int, flags: int) -> None:
        monkeypatch.setattr("fcntl.flock", flock)
        first.__exit__(None)  # the second has opened the hidden file already
        assert path.read_bytes() == b"first"
        flock(handle, flags)

    monkeypatch.setattr("fcntl.flock", finish)
    with atomic.StreamedFile(path, alone=True) as second:
        assert path.read_bytes() == b"first"
        with pytest.raises(RunFolderError, match=r"whole\.bin: another process writes it"):
            atomic.StreamedFile(path, alone=True).__enter__()
        second.write(b"second")
    assert path.read_bytes() == b"second"
    assert [entry.name for entry in tmp_path.iterdir()] == ["whole.bin"]


def test_where_the_file_system_has_no_locks_a_file_is_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(handle: int, flags: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with atomic.StreamedFile(tmp_path / "whole.bin", alone=True) as file:
        file.write(b"content")
    assert (tmp_path / "whole.bin").read_bytes() == b"content"
