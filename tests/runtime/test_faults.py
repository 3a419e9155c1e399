"""The words of torch for faults of the machine, and what they mean."""

import pytest

from cnntrain.cli.exit import exit_code
from cnntrain.errors import DataError
from cnntrain.runtime import device_memory
from cnntrain.runtime.faults import FAULTS, Kind, exit_code_of, fault_of, is_out_of_memory
from cnntrain.runtime.lost_process import answered
from cnntrain.runtime.world import World

ADVICE = (
    "\nCUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be "
    "incorrect.\nCompile with `TORCH_USE_CUDA_DSA` to enable device-side assertions."
)
# As torch 2.14 with CUDA 13 says it, and what a user is told.
TOLD = {
    "CUDA error: no kernel image is available for execution on the device": "this build of torch has no code for",
    "The NVIDIA driver on your system is too old (found version 11040). Please update": "the NVIDIA driver is too old",
    "CUDA error: CUDA driver version is insufficient for CUDA runtime version": "the NVIDIA driver is too old",
    "Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU": "no NVIDIA driver or GPU",
    "CUDA error: CUDA-capable device(s) is/are busy or unavailable": "another process has the GPU to itself",
    "CUDA error: all CUDA-capable devices are busy or unavailable": "another process has the GPU to itself",
    "CUDA error: uncorrectable ECC error encountered": "the GPU reports a fault of its hardware",
    "CUDA error: the launch timed out and was terminated": "the system ended a kernel that took long",
    "Unexpected error from cudaGetDeviceCount(). Did you run some cuda functions before calling NumCudaDevices() that "
    "might have already set an error? Error 802: system not yet initialized": "CUDA does not start",
    "CUDA error: unspecified launch failure": "the GPU or its driver failed without a reason",
    "NCCL error in: ProcessGroupNCCL.cpp:3690, unhandled system error (run with": "NCCL: the processes",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`": "out of memory",
    "cuDNN error: CUDNN_STATUS_NOT_INITIALIZED": "out of memory",
    "GET was unable to find an engine to execute this computation": "out of memory",
    "MPS backend out of memory (MPS allocated: 5.05 GB, other allocations: 8.00 GB, max allowed: 18.13 GB). Tried to "
    "allocate 24.50 MB on private pool.": "out of memory",
    "[enforce fail at alloc_cpu.cpp:127] data. DefaultCPUAllocator: can't allocate memory: you tried to allocate 400 "
    "bytes. Error code 12 (Cannot allocate memory)": "out of memory",
    "could not create a primitive": "out of memory",
    "can't start new thread": "the system gives this process no further thread",
    "CUDA error: out of memory": "the GPU has no memory left for CUDA itself",
}


@pytest.mark.parametrize("text", TOLD)
def test_a_fault_of_the_machine_ends_with_code_7_and_one_line(text, capsys):
    def fails():
        raise RuntimeError(text + (ADVICE if "CUDA" in text else ""))

    assert exit_code(fails) == 7
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert TOLD[text] in line
    assert "; " in line  # what to do


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RuntimeError("CUDA error: uncorrectable ECC error encountered"), 7),
        (RuntimeError("CUDA error: out of memory"), 7),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), 7),
        (MemoryError(), 7),
        (RuntimeError("CUDA error: device-side assert triggered"), 1),
        (RuntimeError("x_backward does not have a deterministic implementation, but you set"), 2),
        (DataError("a damaged file"), 3),
        (FileNotFoundError(2, "no such file", "a.png"), 6),
        (KeyboardInterrupt(), 130),
        (KeyError("of ours"), 1),
    ],
)
def test_a_process_that_is_ended_has_the_code_that_its_own_end_would_have(error, code, tmp_path):
    def fails():
        raise error

    assert exit_code_of(error) == exit_code(fails, lambda: tmp_path) == code


def test_out_of_memory_says_who_holds_it(monkeypatch, capsys):
    def fails():
        raise MemoryError

    monkeypatch.setattr(device_memory, "memory_holders", lambda: "this process holds 1.0 GiB of the GPU's 80.0 GiB")
    assert exit_code(fails) == 7
    assert "error: out of memory: this process holds 1.0 GiB of the GPU's 80.0 GiB; make" in capsys.readouterr().err

    def dies():
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(device_memory, "memory_holders", dies)  # a device that answers no more
    assert exit_code(fails) == 7
    assert "error: out of memory; make data.batch_size smaller" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["device-side assert triggered", "an illegal memory access was encountered"])
def test_a_wrong_index_on_the_device_may_be_ours_and_is_reported(text, capsys, monkeypatch, tmp_path):
    def fails():
        raise RuntimeError(f"CUDA error: {text}{ADVICE}")

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert exit_code(fails) == 1
    line = capsys.readouterr().err
    assert "a label beyond the classes in a network or loss of yours" in line
    assert f"it is a bug of cnntrain (RuntimeError: CUDA error: {text})" in line
    assert list(tmp_path.iterdir())


NCCL = (
    "NCCL error in: ../torch/csrc/distributed/c10d/NCCLUtils.hpp:317, unhandled system error (run with NCCL_DEBUG=INFO "
    "for details), NCCL version 2.21.5\nncclSystemError: System call (e.g. socket, malloc) or external library call "
    "failed or device error. \nLast error:\n"
)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            f"{NCCL}Error while creating shared memory segment /dev/shm/nccl-EoOvZr (size 7340384)",
            "NCCL: the processes",
        ),
        (f"{NCCL}socketProgress: Connection closed by remote peer node2<50424>", "another process of this run"),
        ("CUDA error: uncorrectable ECC error encountered", "the GPU reports a fault of its hardware"),
        ("[../gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:21", "another process of this run"),
    ],
)
def test_a_fault_of_the_machine_in_an_exchange_is_not_taken_for_a_lost_process(text, told, capsys):
    def fails():
        with answered():
            raise RuntimeError(text)

    def fails_by_itself():
        with World(0, 2).answered():
            raise RuntimeError(text)

    for work in (fails, fails_by_itself):
        assert exit_code(work) == 7
        assert told in capsys.readouterr().err


def test_other_errors_are_none_of_the_machine():
    assert fault_of(ValueError("CUDA out of memory")) is None  # quoted by somebody else
    assert fault_of(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) is None
    assert fault_of(RuntimeError("could not create a primitive descriptor for a convolution")) is None
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("CUDA error: out of memory"))  # smaller batches help as little


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.phrases[0])
def test_every_phrase_of_the_table_is_told_by_its_own_line(fault, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def fails():
        raise RuntimeError(f"it says: {phrase.strip()}")

    for phrase in fault.phrases:
        assert exit_code(fails) == (1 if fault.kind is Kind.KERNEL else 7), phrase
        line = capsys.readouterr().err
        assert line.startswith(f"cnntrain: error: {fault.line}")
        assert fault.line or "memory" in line


def test_each_fault_says_what_to_do():
    for fault in FAULTS:
        assert bool(fault.line) == (fault.kind not in (Kind.MEMORY, Kind.FULL))
        assert not fault.line or ";" in fault.line
