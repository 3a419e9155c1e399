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


@pytest.mark.slow
def test_the_default_run_loads_no_compiler_and_no_package_that_only_others_need(tmp_path: Path) -> None:
    said = subprocess.run([sys.executable, "-c", FIRST_STEP], cwd=tmp_path, capture_output=True, text=True)
    lines = said.stdout.splitlines()
    assert "loaded:" in lines, said.stdout + said.stderr
    assert lines[-1] == "code: 0"
