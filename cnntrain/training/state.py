"""What a run is made of while it trains, and how all of it becomes a checkpoint and comes back."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cnntrain.config.schema.scores import main_score
from cnntrain.config.schema.trainer import GradExchange, Precision
from cnntrain.errors import CheckpointError, NonFiniteError
from cnntrain.finetune.batch_norms import keeps_statistics
from cnntrain.finetune.tuning import Tuning
from cnntrain.optim.optimizers import plain_state
from cnntrain.optim.schedules import Plateau
from cnntrain.runtime.seeds import restore_rng_state, rng_state, seed_streams
from cnntrain.runtime.stopwatch import Stopwatch
from cnntrain.runtime.world import ALONE, World
from cnntrain.training.compilation import Compiler
from cnntrain.training.ema import Ema
from cnntrain.training.exchange import Exchange
from cnntrain.training.load_state import ANOTHER, infinite_names, load_optimizer, load_weights
from cnntrain.training.metrics import RunningScores
from cnntrain.training.pace import Pace
from cnntrain.training.skipped_steps import SMALLEST_SCALE, SkippedSteps
from cnntrain.training.timing import RowTimes, Spent


@dataclass
class Progress:
    """How far the run is. Epochs count as done once they are validated."""

    epoch: int = 0
    batch: int = 0  # batches of the epoch in hand that are trained on
    micro_batch: int = 0  # images at once, as trainer.micro_batch=auto has found; 0: a whole batch
    step: int = 0  # optimizer steps
    validated_step: int = -1  # the last step that a validation followed
    seconds: float = 0.0  # of training and validation, over all resumes
    epoch_started: float = 0.0  # the value of `seconds` when the epoch in hand began
    images: int = 0  # trained on in finished epochs, and the seconds that it took without validation
    train_seconds: float = 0.0
    epoch_train_seconds: float = 0.0  # the same for an epoch that a limit has cut short
    # `step` counts on over resumes; the schedule's own count is less by this when a resume has changed the batch.
    step_offset: int = 0
    best_epoch: int = 0  # 1-based; 0: none yet
    best_top1: float = -1.0
    best_top5: float = -1.0
    best_map: float = -1.0  # of images with sets of labels, in place of top-1
    thresholds: list[float] = field(default_factory=list)  # of each of their classes, as the best epoch has fitted them
    best_loss: float = math.inf
    waited: int = 0  # epochs since the best one

    @property
    def schedule_step(self) -> int:
        """Steps by the schedule's own count."""
        return self.step - self.step_offset

    def is_best(self, scores: dict[str, float]) -> bool:
        """Whether validation scores beat the best so far: by mAP or top-1, between equal ones by the loss."""
        loss, best_loss = (math.inf if math.isnan(value) else value for value in (scores["loss"], self.best_loss))
        best = {"top1": self.best_top1, "map": self.best_map}
        key = main_score(scores)
        return (scores[key], -loss) > (best[key], -best_loss)

    def keep_best(self, scores: dict[str, float]) -> None:
        """Take them down as the best so far."""
        for key, value in scores.items():
            setattr(self, f"best_{key}", value)

    @property
    def best_scores(self) -> dict[str, float]:
        """What `keep_best` was given last."""
        scores = {"map": self.best_map, "top1": self.best_top1, "top5": self.best_top5}
        return {key: value for key, value in scores.items() if value >= 0} | {"loss": self.best_loss}


@dataclass
class TrainState:
    """A model in training: everything that a checkpoint must hold for an exact resume.

    Of several processes each has one. After every step all of them hold the same bits but for their random numbers.
    """

    model: nn.Module
    optimizer: Optimizer
    scaler: torch.amp.GradScaler
    device: torch.device
    precision: Precision
    seed: int
    ema: Ema | None = None
    tuning: Tuning | None = None  # what of a pretrained network learns when; None: everything, always
    compiler: Compiler | None = None  # of what the loop calls; None: the network as it is
    multi_label: bool = False  # each image has a set of labels
    world: World = ALONE
    grad_exchange: GradExchange = GradExchange.fp32
    progress: Progress = field(default_factory=Progress)
    plateau: Plateau = field(default_factory=Plateau)
    pace: Pace = field(default_factory=Pace)
    spent: Spent = field(default_factory=Spent)

    def __post_init__(self) -> None:
        self.exchange = Exchange(self.world, self.grad_exchange)
        self.call("")
        windows = (RunningScores(self.device, multi_label=self.multi_label, world=self.world) for _ in range(2))
        self.epoch_window, self.log_window = windows  # over the epoch in hand, and since the last log row
        self.grad_norm = torch.zeros(())  # as last measured
        self.watch, self.row_times = Stopwatch(self.device), RowTimes(self.world)
        self.row_is_due = False  # behind the last step
        has_scale = self.scaler.is_enabled()
        self.skips = SkippedSteps(self.model, self.scaler, self.optimizer) if has_scale else None
        self._infinite: set[str] = set()
        self._infinite.update(infinite_names(self._tensors()))

    def call(self, part: str) -> None:
        """Train and score a module of the network by itself; "": the whole network."""
        self.part = part
        # What the loop calls; `model` stays the plain module, so that names carry no prefix. A short batch that comes
        # once an epoch goes through the plain network: a graph of its own would cost more than it saves.
        self.short_forward: Any = self.exchange.wrap(self.model.get_submodule(part))
        self.forward = self.compiler(self.short_forward) if self.compiler else self.short_forward
        # Those that count batches; compiled, they do it along with all else that is computed there.
        modules = self.model.get_submodule(part).modules()
        self.norms = [] if self.compiler else [module for module in modules if keeps_statistics(module)]
        self.eval_forward = self.forward
        if self.compiler and self.eval_part is not self.short_forward:
            self.eval_forward = self.compiler(self.eval_part)

    @property
    def eval_model(self) -> nn.Module:
        """The network that is scored and used: the averaged one where there is one."""
        return self.ema.model if self.ema else self.model

    @property
    def eval_part(self) -> nn.Module:
        """The part of it that the loop scores."""
        return self.eval_model.get_submodule(self.part)

    def start_epoch(self) -> list[str]:
        """Put the network into training mode, as far as it learns in the epoch in hand; lines to say on a change."""
        self.model.train()
        news = self.tuning.enter(self.progress.epoch) if self.tuning else []
        if self.exchange.is_stale() or (self.compiler and news):  # which compiles anew, and says so
            self.call(self.part)
        return news

    def state(self) -> dict[str, Any]:
        """All of it as plain containers and tensors: the same in all processes, which must ask for it together."""
        streams = self.world.gather(rng_state(self.device))
        return {
            "model": self.model.state_dict(),
            "ema": self.ema.state() if self.ema else None,
            "optimizer": plain_state(self.optimizer),
            "scaler": self.scaler.state_dict(),
            "progress": asdict(self.progress),
            "plateau": asdict(self.plateau),
            "pace": asdict(self.pace),
            "spent": asdict(self.spent),
            "tuning": self.tuning.state() if self.tuning else None,
            "windows": {"epoch": self.epoch_window.state(), "log": self.log_window.state()},
            "rng": streams[0],
            "rng_others": streams[1:],  # of processes of higher rank
        }

    def restore(self, state: dict[str, Any], *, is_retuned: bool = False) -> None:
        """Go on exactly where `state` was taken.

        Args:
            is_retuned: the user has changed what learns when.
        """
        load_weights(self.model, state["model"])
        if self.tuning and state.get("tuning"):
            self.tuning.restore(state["tuning"], is_changed=is_retuned)
        if self.ema:
            if state["ema"] is None:
                raise CheckpointError(
                    "trainer.ema: the checkpoint holds no averaged weights; resume with trainer.ema=null"
                )
            self.ema.restore(state["ema"])
        load_optimizer(self.optimizer, state["optimizer"])
        if self.scaler.is_enabled() and state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        self.progress = Progress(**state["progress"])
        self.plateau = Plateau(**state["plateau"])
        self.pace, self.spent = Pace(**state.get("pace", {})), Spent(**state.get("spent", {}))
        self.epoch_window.restore(state["windows"]["epoch"])
        self.log_window.restore(state["windows"]["log"])
        streams = [state["rng"], *state.get("rng_others", [])]
        if self.world.rank < len(streams):
            try:
                restore_rng_state(streams[self.world.rank], self.device)
            except (TypeError, ValueError, OverflowError, RuntimeError, AttributeError) as error:
                raise CheckpointError(f"rng: no random state that torch and Python know; {ANOTHER}") from error
        else:
            seed_streams(self.seed, self.world.rank, self.progress.step)

    def measure_gradient(self, clip_norm: float | None) -> None:
        """Measure the norm of the whole gradient, and clip it where a limit is given."""
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        self.grad_norm = torch.nn.utils.get_total_norm(gradients)
        if clip_norm:
            torch.nn.utils.clip_grads_with_norm_(self.model.parameters(), clip_norm, self.grad_norm)

    def fold_log_window(self) -> None:
        """Count what the log window holds into the epoch's, and empty it."""
        self.epoch_window.merge(self.log_window)
        self.log_window.reset()

    def epoch_scores(self) -> dict[str, float]:
        """Mean loss and accuracy over the epoch in hand, and its images so far."""
        self.fold_log_window()
        return self.epoch_window.read() | {"images": self.epoch_window.totals()[1]}

    def images_per_second(self) -> float:
        """The rate of training, over all epochs of the run and without validation."""
        progress = self.progress
        images = progress.images + self.epoch_window.totals()[1]
        seconds = progress.train_seconds + progress.epoch_train_seconds
        return images / seconds if seconds else 0.0

    def read_log_window(self) -> dict[str, float]:
        """Loss and accuracy since the last log row; NonFiniteError if that loss is, or no step is taken any more."""
        scores = self.log_window.read()
        if self.skips and self.scaler.get_scale() < SMALLEST_SCALE:
            raise self._non_finite("the gradient is NaN or infinite in each step, however small the loss is scaled")
        if not math.isfinite(scores["loss"]):
            raise self._non_finite(f"the loss is {scores['loss']}")
        return scores

    def check_finite(self) -> None:
        """Raise NonFiniteError if that loss or anything that a checkpoint would hold is."""
        self.read_log_window()
        name = next(iter(infinite_names(self._tensors())), "")
        if any(self.world.most(bool(name))):
            raise self._non_finite(f"{name or 'a tensor of another process'} is NaN or infinite in places")

    def _tensors(self) -> dict[str, Tensor]:
        """The tensors that a checkpoint holds, but for those that are infinite by design, such as masks."""
        tensors = self.model.state_dict()
        if self.ema:
            tensors |= {f"the average of {name}": value for name, value in self.ema.model.state_dict().items()}
        for name, parameter in self.model.named_parameters():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                if isinstance(value, Tensor) and value.ndim:  # the others count steps, some of them on the host
                    tensors[f"{key} of {name}"] = value
        return {name: value for name, value in tensors.items() if name not in self._infinite}

    def _non_finite(self, what: str) -> NonFiniteError:
        rate = self.optimizer.param_groups[0]["lr"]
        ways = (
            ", trainer.clip_norm=1 or trainer.precision=fp32" if self.precision.is_half else " or trainer.clip_norm=1"
        )
        return NonFiniteError(
            f"step {self.progress.step}: {what} (epoch {self.progress.epoch + 1}, learning rate {rate:.3g}); "
            f"try a lower optimizer.lr{ways}"
        )
