"""An ONNX file in whole numbers: static quantisation by onnxruntime, calibrated on images of the run."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cnntrain.data.loaders import Loader
from cnntrain.errors import CnntrainError, ConfigError
from cnntrain.export.graph import LONGEST, silence
from cnntrain.export.subject import Ask, ExportedFile, Subject
from cnntrain.export.to_onnx import Session
from cnntrain.runtime.faults import is_out_of_memory
from cnntrain.text import cut, one_line
from cnntrain.training.multi_label import SetAnswers, mean_average_precision

COSTLY = 0.02  # of accuracy, of which a warning tells
MOST_IMAGES, CHUNK = 512, 32  # that the ranges of activations are measured on; so many are in memory at a time
_BEFORE = ("Transpose", "Cast", "Mul", "Add")  # operators of the preprocessing in the graph
_BEHIND = ("Softmax", "Sigmoid", "Div", "Mul")


def quantize(file: ExportedFile, subject: Subject, loader: Loader) -> tuple[ExportedFile, int]:
    """The file with 8-bit weights (one scale for each output channel) and activations; and how many images it took.

    Activations are uint8, between the smallest and largest that were met. Weights have 7 of the 8 bits: a processor
    without VNNI adds products in 16 bits, which more would overflow, and the file is to answer alike everywhere.

    Args:
        loader: of the images to measure on, spread over all of them.

    Raises:
        ConfigError: onnxruntime cannot.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    count = min(MOST_IMAGES, len(loader.labels))
    chunks = torch.linspace(0, len(loader.labels) - 1, count).long().split(CHUNK)
    inputs = ({subject.input_name: subject.inputs(loader.pick(rows).cpu()).numpy()} for rows in chunks)

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> Any:
            return next(inputs, None)

    model = onnx.load_from_string(file.content)
    try:
        with silence(), tempfile.TemporaryDirectory(prefix="cnntrain-int8-") as folder:
            target = Path(folder) / "model.onnx"
            quantize_static(
                model,
                target,
                Reader(),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=list(_around(model)) if subject.has_preprocessing else None,
            )
            made = onnx.load(target)
        made.producer_name, made.producer_version = model.producer_name, model.producer_version
        content = made.SerializeToString()
        return ExportedFile(content, Session(content), file.runtime), count
    except CnntrainError:  # of the images
        raise
    except Exception as error:  # of onnxruntime, which knows many
        if is_out_of_memory(error) or isinstance(error, OSError):
            raise
        reason = cut(one_line(error), LONGEST)
        raise ConfigError(f"int8: onnxruntime cannot quantise this network ({reason}); leave it out") from error


def _around(model: Any) -> Iterator[str]:
    """The nodes before and behind the network itself: pixels and probabilities stay as fine as they are."""
    nodes = list(model.graph.node)
    name = model.graph.input[0].name
    while node := next((node for node in nodes if name in node.input and node.op_type in _BEFORE), None):
        yield node.name
        name = node.output[0]
    name = model.graph.output[0].name
    while node := next((node for node in nodes if name in node.output and node.op_type in _BEHIND), None):
        yield node.name
        name = node.input[0]


@dataclass(frozen=True)
class Cost:
    """What whole numbers cost.

    Attributes:
        before, after: the top-1 without and with them, or of sets of labels the mean average precision.
        shift: how far the probability of the class that the network names moves, or those of its labels, up or down, on
            average.
    """

    before: float
    after: float
    shift: float


def cost(file: Ask, small: Ask, subject: Subject, loader: Loader, advance: Callable[[int], None]) -> Cost:
    """Ask both for all images of a split; no more than a micro-batch is in memory, and of sets all the answers.

    Args:
        advance: is told the images of each micro-batch.
    """
    if subject.reading.thresholds is not None:
        return _cost_of_sets(file, small, subject, loader, advance)
    sums, total = torch.zeros(3, dtype=torch.float64), 0
    with closing(loader.batches()) as batches:
        for batch in batches:
            inputs, labels = subject.inputs(batch.images.cpu()), batch.labels.cpu()
            full, rough = (subject.probabilities(ask(inputs)) for ask in (file, small))
            named = full.argmax(1, keepdim=True)
            right = [int((answer.argmax(1) == labels).sum()) for answer in (full, rough)]
            moved = (full.gather(1, named) - rough.gather(1, named)).abs().sum()
            sums += torch.tensor([*right, float(moved)])
            total += len(labels)
            advance(len(labels))
    return Cost(*(sums / total).tolist())


def _cost_of_sets(file: Ask, small: Ask, subject: Subject, loader: Loader, advance: Callable[[int], None]) -> Cost:
    """See cost."""
    full_answers, rough_answers, moved, calls = SetAnswers(), SetAnswers(), 0.0, 0
    with closing(loader.batches()) as batches:
        for batch in batches:
            inputs, labels = subject.inputs(batch.images.cpu()), batch.labels.cpu()
            full, rough = (subject.probabilities(ask(inputs)) for ask in (file, small))
            full_answers.add(full, labels)
            rough_answers.add(rough, labels)
            given = subject.reading.decide(full)
            moved += float(((full - rough).abs() * given).sum())
            calls += int(given.sum())
            advance(len(labels))
    before, after = (mean_average_precision(*answers.read()) for answers in (full_answers, rough_answers))
    return Cost(before, after, moved / max(calls, 1))
