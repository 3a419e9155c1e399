"""What a start does without."""

import subprocess
import sys
from pathlib import Path

import pytest

WITHOUT = ("sklearn", "scipy", "torch._dynamo", "torch._inductor", "torch.distributed.tensor", "sympy", "timm")
FIRST_STEP = f"""
import sys
from cnntrain.cli import main
from cnntrain.training import loop

watch = loop.finish_epoch
def finish(*args):
    print("loaded:", *({{"matplotlib", *{WITHOUT}}} & sys.modules.keys()))
    return watch(*args)

loop.finish_epoch = finish
code = main(["trainer.max_steps=1", "out=run", "trainer.threads=1"])
print("code:", code, *({{*{WITHOUT}}} & sys.modules.keys()))
"""


# What help takes of ours: each module more costs all who ask for it.
OF_HELP = {
    *("cnntrain", "cnntrain.cli", "cnntrain.cli.entry", "cnntrain.cli.exit", "cnntrain.cli.help"),
    *("cnntrain.config", "cnntrain.config.paths", "cnntrain.errors", "cnntrain.text"),
    *("cnntrain.runtime", "cnntrain.runtime.job_clock"),
}
# What only commands or sound lines need, and what it costs most to load.
OF_COMMANDS = ("dataclasses", "hydra", "omegaconf", "socket", "tempfile")
OF_RUNS = tuple(
    f"cnntrain.{name}"
    for name in ("cli.hydra_jobs", "config.no_effect", "config.run_config", "runtime.launcher", "storage.run_folder")
)


def modules_of(words: list[str]) -> tuple[set[str], str]:
    """The modules that a line loads in a process of its own, and what it says on stderr."""
    code = f"import sys; from cnntrain.cli import main; main({words!r}); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    return set(done.stdout.splitlines()[-1].split()), done.stderr


@pytest.mark.parametrize("words", [["--help"], ["--version"]])
def test_help_and_version_load_nothing_that_only_commands_need(words: list[str]) -> None:
    modules, said = modules_of(words)
    assert not said
    assert {name for name in modules if name.partition(".")[0] == "cnntrain"} <= OF_HELP
    assert not modules.intersection(OF_COMMANDS)


def test_a_config_fault_loads_nothing_that_only_sound_lines_need() -> None:
    modules, said = modules_of(["optimizer.lr=abc"])
    assert "optimizer.lr" in said
    assert not modules.intersection(OF_RUNS)


@pytest.mark.slow
def test_the_default_run_loads_no_compiler_and_no_package_that_only_others_need(tmp_path: Path) -> None:
    said = subprocess.run([sys.executable, "-c", FIRST_STEP], cwd=tmp_path, capture_output=True, text=True)
    lines = said.stdout.splitlines()
    assert "loaded:" in lines, said.stdout + said.stderr
    assert lines[-1] == "code: 0"
