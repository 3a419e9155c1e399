"""What leaves: a trained network as its file will hold it, and what the file says of it."""

import json
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cnntrain import __version__
from cnntrain.evaluation.prediction import Reading
from cnntrain.training.job import Job

Ask = Callable[[Tensor], Tensor]  # from the input of a network to its output, both on the CPU


class WithPreprocessing(nn.Module):
    """A network and what stands before and behind it: uint8 (N, S, S, C) to probabilities (N, K).

    The pixels come as decoders and cameras give them, colours last. Their size is fixed: what brings a photo to S x S
    (antialiased, rounded to whole levels) cannot be had to the bit from the operators of a graph.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self, network: nn.Module, mean: list[float], std: list[float], temperature: float, multi_label: bool = False
    ) -> None:
        super().__init__()
        self.network, self.temperature, self.multi_label = network, temperature, multi_label
        centre, spread = (torch.tensor(values, dtype=torch.float64).view(-1, 1, 1) for values in (mean, std))
        self.register_buffer("scale", (1 / (255 * spread)).float())
        self.register_buffer("shift", (-centre / spread).float())

    def forward(self, images: Tensor) -> Tensor:
        inputs = images.permute(0, 3, 1, 2).to(torch.float32) * self.scale + self.shift
        logits: Tensor = self.network(inputs) / self.temperature
        return logits.sigmoid() if self.multi_label else logits.softmax(1)


@dataclass(frozen=True)
class Subject:
    """A network to be exported, on the CPU, in evaluation mode.

    Attributes:
        job: whose network it is; its weights are moved to the CPU.
        has_preprocessing: the graph takes uint8 (N, S, S, C) and gives probabilities; else it takes what it learned
            from, float32 (N, C, S, S), and gives logits.
    """

    job: Job
    has_preprocessing: bool = False

    def __post_init__(self) -> None:
        network: nn.Module = self.job.model.eval().requires_grad_(False)
        network.to(device="cpu", dtype=torch.float32, memory_format=torch.contiguous_format)  # type: ignore[call-overload]

    @property
    def network(self) -> nn.Module:
        """What becomes a graph."""
        if not self.has_preprocessing:
            return self.job.model
        data = self.job.data
        return WithPreprocessing(self.job.model, data.mean, data.std, self.job.temperature, data.multi_label).eval()

    @property
    def reading(self) -> Reading:
        """How logits are read."""
        return Reading.of(self.job)

    def decide(self, answers: Tensor) -> Tensor:
        """What is said by the answers of the graph: the best class, int64 (N,), or of sets the labels, bool (N, K)."""
        return (
            answers.argmax(1) if self.reading.thresholds is None else self.reading.decide(self.probabilities(answers))
        )

    @property
    def input_name(self) -> str:
        return "images" if self.has_preprocessing else "input"

    @property
    def output_name(self) -> str:
        return "probabilities" if self.has_preprocessing else "logits"

    def inputs(self, images: Tensor) -> Tensor:
        """What the graph takes for uint8 images (N, C, S, S) on the CPU."""
        if self.has_preprocessing:
            return images.permute(0, 2, 3, 1).contiguous()
        return self.job.normalize(images).contiguous()

    def probabilities(self, answers: Tensor) -> Tensor:
        """Of what the graph gives, float32 (N, K)."""
        return answers if self.has_preprocessing else self.reading.probabilities(answers)

    @property
    def example(self) -> Tensor:
        """An input of two blank images, from which a graph is drawn."""
        data = self.job.data
        return self.inputs(torch.zeros(2, data.channels, data.eval_size, data.eval_size, dtype=torch.uint8))

    @torch.no_grad()
    def answer(self, images: Tensor) -> Tensor:
        """The answer of the network as it was trained, by the transform of evaluation, to uint8 images (N, C, S, S)."""
        logits: Tensor = self.job.model(self.job.normalize(images)).float()
        return self.reading.probabilities(logits) if self.has_preprocessing else logits

    @property
    def metadata(self) -> dict[str, str]:
        """What a file says of itself, each value as JSON."""
        data, thresholds = self.job.data, self.reading.thresholds
        facts = {
            "classes": data.classes,
            "preprocessing": {
                "image_size": data.eval_size,
                "channels": data.channels,
                "interpolation": data.interpolation.value,
                "crop": data.crop,
                "crop_mode": data.crop_mode.value,
                "mean": data.mean,
                "std": data.std,
                "in_graph": self.has_preprocessing,
            },
            "temperature": self.job.temperature,
            **({} if thresholds is None else {"multi_label": True, "thresholds": thresholds.tolist()}),
            "network": self.job.settings.model.name,
            "cnntrain": __version__,
        }
        return {key: json.dumps(value) for key, value in facts.items()}


@dataclass(frozen=True)
class ExportedFile:
    """A file that is not written yet.

    Attributes:
        content: of the file.
        ask: the answer of what was loaded from the content, with no help of the network.
        runtime: what answers, in words.
        facts: more to tell, as (name, fact).
    """

    content: bytes
    ask: Ask
    runtime: str
    facts: tuple[tuple[str, str], ...] = ()
