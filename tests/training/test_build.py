"""A training job as it is built from settings."""

import mmap
import sys

import pytest

from cnntrain.config.compose import compose_settings
from cnntrain.report.run_report import Report
from cnntrain.runtime.device_memory import peak_memory
from cnntrain.training.build import build_train_job


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux forgets a peak")
def test_a_job_tells_the_peak_of_its_own_memory_and_not_of_what_came_before():
    def build():
        words = ["data.limit=60", "model=lenet5", "trainer.device=cpu", "trainer.threads=1"]
        return build_train_job(compose_settings(words), Report(None, tensorboard=False), splits=("train",)).device

    device = build()
    before = peak_memory(device)
    with mmap.mmap(-1, 400 << 20) as earlier:  # of an earlier job of the sweep
        for place in range(0, len(earlier), mmap.PAGESIZE):
            earlier[place] = 1
    assert peak_memory(device) > before + (200 << 20)
    build()
    assert peak_memory(device) < before + (200 << 20)
