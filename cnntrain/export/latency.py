"""How long an exported file takes to answer on this machine."""

import statistics
import time

import torch

from cnntrain.export.subject import ExportedFile, Subject

BATCHES = (1, 32)
LEAST, MOST, SECONDS = 3, 50, 2.0  # rounds of each batch, and when to stop between them


def measure(file: ExportedFile, subject: Subject) -> list[tuple[int, float]]:
    """For each size of batch, the median of the seconds that an answer takes, after one to warm up."""
    rows = []
    for count in BATCHES:
        inputs = subject.example[:1].repeat(count, *[1] * 3)
        file.ask(inputs)
        seconds: list[float] = []
        while len(seconds) < LEAST or (sum(seconds) < SECONDS and len(seconds) < MOST):
            start = time.perf_counter()
            file.ask(inputs)
            seconds.append(time.perf_counter() - start)
        rows.append((count, statistics.median(seconds)))
    return rows


def in_words(rows: list[tuple[int, float]], runtime: str) -> str:
    """`1 image 2.1 ms, 32 images 51 ms (1.6 ms each); median, onnxruntime 1.23.0, 2 threads`."""
    parts = []
    for count, seconds in rows:
        each = f" ({_time(seconds / count)} each)" if count > 1 else ""
        parts.append(f"{count} image{'s' if count > 1 else ''} {_time(seconds)}{each}")
    threads = torch.get_num_threads()
    return f"{', '.join(parts)}; median, {runtime}, {threads} CPU thread{'s' if threads > 1 else ''}"


def _time(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 0.9995 else f"{seconds * 1000:.3g} ms"
