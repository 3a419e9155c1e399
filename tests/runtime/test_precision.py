"""The precision that a device gets, and the warnings of slow ones."""

import torch

from cnntrain.config.schema.trainer import Precision
from cnntrain.runtime import precision

CPU = torch.device("cpu")


def test_auto_precision_on_a_cpu_is_fp32_and_slow_choices_warn():
    assert precision.choose_precision(Precision.auto, CPU) == (Precision.fp32, [])
    assert "slow" in precision.choose_precision(Precision.fp16, CPU)[1][0]
    assert "no effect" in precision.choose_precision(Precision.tf32, CPU)[1][0]


def test_bf16_warns_where_the_hardware_lacks_it_and_is_known_to(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert "emulates" in precision.choose_precision(Precision.bf16, torch.device("cuda"))[1][0]
    cpuinfo = tmp_path / "cpuinfo"
    monkeypatch.setattr(precision, "Path", lambda path: cpuinfo)
    assert precision.choose_precision(Precision.bf16, CPU)[1] == []  # a Mac has no such file
    cpuinfo.write_text("flags\t: fma avx2 avx512f\n")
    assert "no bf16 units" in precision.choose_precision(Precision.bf16, CPU)[1][0]
    cpuinfo.write_text("Features\t: fp asimd i8mm bf16\n")
    assert precision.choose_precision(Precision.bf16, CPU)[1] == []
