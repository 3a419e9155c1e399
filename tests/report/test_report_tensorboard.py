"""TensorBoard's event files, read back."""

import errno
import io
import os
import re
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from torch import nn

from cnntrain.config.schema.optimizer import AdamSettings, SgdSettings
from cnntrain.config.schema.pieces import CutmixSettings
from cnntrain.config.schema.settings import Settings
from cnntrain.finetune.audit import GroupRow
from cnntrain.plots.confusion import draw_confusion
from cnntrain.plots.grid import grid
from cnntrain.report.event_file import EventFile
from cnntrain.report.run_report import Report
from cnntrain.report.summary import table_settings
from cnntrain.report.tensorboard import TensorBoardLog, flatten
from cnntrain.runtime.stopwatch import PHASES

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorboard.*")


def quiet() -> Console:
    return Console(file=io.StringIO(), width=80)


def read(folder: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    return events


def play(folder: Path, steps: range, resume_step: int | None = None) -> None:
    """Log every step, end an epoch every fifth, then close without ceremony."""
    report = Report(folder, tensorboard=True, resume_step=resume_step, console=quiet())
    for step in steps:
        report.step(
            {"step": step, "epoch": 1, "loss": 1 / step, "top1": 0.5, "lr": 0.1}
            | {"images_per_second": 100.0, "data_wait": 0.0, "grad_norm": 1.0}
        )
        if step % 5 == 0:
            report.epoch(
                {
                    "epoch": step // 5,
                    "step": step,
                    "train_loss": 1.0,
                    "train_top1": 0.5,
                    "val_loss": 1.0,
                    "val_top1": 0.5,
                }
                | {"val_top5": None, "lr": 0.1, "seconds": 1.0, "images_per_second": 100.0, "best": False}
                | {f"seconds_{phase}": 0.1 for phase in PHASES}
            )
    report.close()


def test_steps_rise_strictly_after_a_resume(tmp_path):
    play(tmp_path, range(1, 18))
    play(tmp_path, range(11, 21), resume_step=10)
    events = read(tmp_path)
    for tag in ("train/loss", "train/lr", "train/images_per_second", "train/data_wait", "train/grad_norm"):
        assert [event.step for event in events.Scalars(tag)] == list(range(1, 21)), tag
    for tag in ("val/loss", "val/top1", "epoch/train_loss"):
        assert [event.step for event in events.Scalars(tag)] == [5, 10, 15, 20], tag
    assert "val/top5" not in events.Tags()["scalars"]
    assert events.Scalars("train/loss")[3].value == pytest.approx(0.25)


def test_epoch_that_is_told_again_after_a_resume_stands_there_once(tmp_path):
    play(tmp_path, range(1, 11))
    play(tmp_path, range(10, 13), resume_step=10)
    assert [event.step for event in read(tmp_path).Scalars("val/loss")] == [5, 10]
    assert [event.step for event in read(tmp_path).Scalars("train/loss")] == list(range(1, 13))


def test_run_that_starts_again_hides_what_was_written_before(tmp_path):
    play(tmp_path, range(1, 9))
    play(tmp_path, range(1, 4))
    assert [event.step for event in read(tmp_path).Scalars("train/loss")] == [1, 2, 3]


def test_hyperparameters_and_final_scores_stand_in_the_run_itself(tmp_path):
    from tensorboard.plugins.hparams import metadata

    report = Report(tmp_path, tensorboard=True, console=quiet())
    report.hparams({"model": {"name": "lenet5", "args": {}}, "seed": 0, "trainer": {"ema": None}}, {"test/top1": 0.97})
    report.close()
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []
    events = read(tmp_path)
    assert events.Scalars("best/test/top1")[0].value == pytest.approx(0.97)
    start = metadata.parse_session_start_info_plugin_data(
        events.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    )
    assert start.hparams["model.name"].string_value == "lenet5"
    assert start.hparams["seed"].number_value == 0
    assert start.hparams["trainer.ema"].string_value == "none"


def table_of_runs(folder: Path):
    """The columns of TensorBoard's table of all runs below a folder, in its order: (setting, whether it differs), and
    the scores."""
    from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
    from tensorboard.context import RequestContext
    from tensorboard.plugins.base_plugin import TBContext
    from tensorboard.plugins.hparams import backend_context, get_experiment
    from tensorboard.plugins.hparams.api_pb2 import GetExperimentRequest

    runs = EventMultiplexer().AddRunsFromDirectory(str(folder))
    runs.Reload()
    backend = backend_context.Context(TBContext(data_provider=MultiplexerDataProvider(runs, str(folder))))
    found = get_experiment.Handler(RequestContext(), backend, "", GetExperimentRequest()).run()
    return [(one.name, one.differs) for one in found.hparam_infos], [one.name.tag for one in found.metric_infos]


def test_table_of_runs_shows_first_what_differs_and_the_scores_of_the_best_epoch(tmp_path):
    sgd, adam = Settings(optimizer=SgdSettings(lr=0.1)), Settings(optimizer=AdamSettings(lr=0.001))
    for settings in (sgd, adam):
        settings.data.title, settings.model.title = "photos", "cnn3"
    adam.augment.cutmix, adam.trainer.ema, adam.data.workers = CutmixSettings(), 0.99, 3
    for name, settings in (("one", sgd), ("other", adam)):
        (tmp_path / name).mkdir()
        play(tmp_path / name, range(1, 6))
        report = Report(tmp_path / name, tensorboard=True, resume_step=5, console=quiet())
        report.hparams(table_settings(settings), {"test/top1": 0.9, "val/top1": 0.8})
        report.close()
    columns, scores = table_of_runs(tmp_path)
    assert [name for name, differs in columns if differs] == [
        "augment",
        "optimizer.lr",
        "optimizer.name",
        "trainer.ema",
    ]
    assert {"augment.cutmix.alpha", "data", "model", "optimizer.momentum", "seed"} < {
        name for name, differs in columns if not differs
    }
    assert not any(
        name.startswith(("augment.mixup", "augment.blur", "data.workers", "data.title")) for name, _ in columns
    )
    assert scores[:2] == ["best/test/top1", "best/val/top1"]


def test_first_page_of_custom_scalars_asks_whether_it_is_learning_and_all_its_tags_are_written(tmp_path):
    from tensorboard.plugins.custom_scalar.layout_pb2 import Layout

    play(tmp_path, range(1, 18))
    play(tmp_path, range(11, 21), resume_step=10)
    events = read(tmp_path)
    layout = Layout.FromString(events.Tensors("custom_scalars__config__")[-1].tensor_proto.string_val[0])
    assert [page.title for page in layout.category] == ["Is it learning?", "How fast?"]
    tags = [tag for page in layout.category for chart in page.chart for tag in chart.multiline.tag]
    written = events.Tags()["scalars"]
    missing = [tag for tag in tags if not any(re.search(tag, name) for name in written)]
    assert missing == ["^probe/loss$", "^probe/top1$"]  # this run has none
    assert all(sum(bool(re.search(tag, name)) for name in written) <= 1 for tag in tags)


def test_flatten_keeps_plain_values_and_writes_the_rest_as_text():
    tree = {"a": {"b": 1, "c": {"d": True}}, "e": [0.1, 0.2], "f": None, "g": {}, "h": 0.5}
    assert flatten(tree) == {"a.b": 1, "a.c.d": True, "e": "[0.1, 0.2]", "f": "none", "g": "none", "h": 0.5}


def test_graph_leaves_modes_statistics_and_random_state_alone(tmp_path):
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(0.5), nn.Flatten(), nn.Linear(72, 3))
    model[1].eval()
    before, state = {key: value.clone() for key, value in model.state_dict().items()}, torch.get_rng_state()
    report = Report(tmp_path, tensorboard=True, console=quiet())
    report.graph(model, torch.zeros(1, 1, 8, 8))
    report.close()
    assert read(tmp_path).Tags()["graph"]
    assert [module.training for module in model] == [True, False, True, True, True]
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())


def test_model_that_cannot_be_traced_costs_one_warning(tmp_path, capfd):
    class Untraceable(nn.Module):
        def forward(self, images):
            raise RuntimeError("not for tracing")

    console = quiet()
    report = Report(tmp_path, tensorboard=True, console=console)
    report.graph(Untraceable(), torch.zeros(1, 1, 8, 8))
    report.close()
    told = "warning: no graph of the model for TensorBoard: RuntimeError: not for tracing; the training goes on\n"
    assert console.file.getvalue() == told
    assert capfd.readouterr().out == ""


def test_pictures_and_confusion_matrix_can_be_read_back(tmp_path):
    report = Report(tmp_path, tensorboard=True, console=quiet())
    report.pictures("train/images", torch.randint(256, (3, 1, 8, 8), dtype=torch.uint8), ["zero", "one", "two"])
    report.confusion("test/confusion", torch.eye(3, dtype=torch.int64) * 5, ["zero", "one", "two"])
    report.close()
    events = read(tmp_path)
    assert Counter(events.Tags()["images"]) == {"train/images": 1, "test/confusion": 1}
    encoded = events.Images("test/confusion")[0].encoded_image_string
    picture = np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))
    chart = draw_confusion(np.eye(3, dtype=np.int64) * 5, ["zero", "one", "two"])
    assert np.array_equal(picture, chart.pixels())


@pytest.mark.parametrize("lines", [1, 2])
@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 32), (3, 224)])
def test_grid_shows_the_pixels_of_each_image(channels, size, lines):
    images = np.random.default_rng(0).integers(0, 256, (10, channels, size, size), dtype=np.uint8)
    picture = grid(images, ["\n".join([f"a rather long caption {index}"] * lines) for index in range(10)])
    scale = max(1, -(-96 // size))
    for index in (0, 7, 9):
        left = 8 + index % 8 * (size * scale + 8)
        top = 8 + index // 8 * (size * scale + 8 + 16 * lines)
        tile = picture[top : top + size * scale : scale, left : left + size * scale : scale]
        assert (tile == np.broadcast_to(images[index], (3, size, size)).transpose(1, 2, 0)).all()


def test_names_in_pictures_are_told_apart_whatever_their_letters() -> None:
    images = np.zeros((1, 1, 8, 8), dtype=np.uint8)
    assert not np.array_equal(grid(images, ["ä"]), grid(images, ["ö"]))


FACTS = {"model": {"name": "lenet5", "root": "Gr\udcc3\udcb6\udcc3\udc9fe \ud800"}}


def tell_all(report: Report) -> None:
    """Everything that TensorBoard is told of a run, twice."""
    images, counts = torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.eye(2, dtype=torch.int64)
    for step in (1, 2):
        report.step({"step": step, "epoch": 1, "loss": 1.0, "top1": 0.5, "lr": 0.1})
        report.epoch(
            {"epoch": step, "step": step, "train_loss": 1.0, "train_top1": 0.5, "val_loss": 1.0, "val_top1": 0.5}
            | {"val_top5": None, "lr": 0.1, "seconds": 1.0, "images_per_second": 1.0, "best": True}
        )
        report.audit([GroupRow("head", ("fc",), 10, 10, 1, 0.1, 0.0, "-")])
        report.pictures("train/images", images, ["Schlüssel", "猫"])
        report.confusion("test/confusion", counts, ["Schlüssel", "猫"])
        report.graph(nn.Flatten(), torch.zeros(1, 1, 8, 8))
        report.hparams(FACTS, {"test/top1": 0.97})
    report.close()


def warnings_of(console: Console) -> list[str]:
    return [line for line in console.file.getvalue().splitlines() if line.startswith("warning: ")]


def test_no_fault_of_drawing_or_logging_is_raised_and_each_is_said_once(tmp_path, monkeypatch):
    def fails(*args, **kwargs):
        raise UnicodeEncodeError("ascii", "ü", 0, 1, "ordinal not in range(128)")

    for name in ("scalars", "picture", "text", "graph", "hparams"):
        monkeypatch.setattr(TensorBoardLog, name, fails)
    console = Console(file=io.StringIO(), width=200)
    tell_all(Report(tmp_path, tensorboard=True, console=console))
    things = ["curves", "layer groups", "picture train/images", "picture test/confusion", "graph of the model"]
    reason = "UnicodeEncodeError: 'ascii' codec can't encode character '\\xfc' in position 0: ordinal not in range(128)"
    assert warnings_of(console) == [
        f"warning: no {thing} for TensorBoard: {reason}; the training goes on"
        for thing in (*things, "settings and final scores")
    ]
    assert (tmp_path / "metrics.csv").read_text().count("\n") == 5


def test_a_full_disk_is_said_once_with_the_name_of_the_event_file_which_stays_whole(tmp_path, monkeypatch, capfd):
    console, threads = Console(file=io.StringIO(), width=200), threading.active_count()
    report = Report(tmp_path, tensorboard=True, console=console)
    report.step({"step": 1, "epoch": 1, "loss": 1.0, "top1": 0.5, "lr": 0.1})
    assert threading.active_count() == threads  # a thread of TensorBoard's would print its traceback
    write = os.write

    def full(handle, data):
        if len(data) < 8:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(handle, data[: len(data) // 2])

    monkeypatch.setattr(os, "write", full)
    tell_all(report)
    (path,) = tmp_path.glob("events.*")
    told = f"warning: nothing more for TensorBoard: {path}: No space left on device; the training goes on"
    assert warnings_of(console) == [told]
    assert [event.step for event in read(tmp_path).Scalars("train/loss")] == [1]
    assert capfd.readouterr().err == ""


def test_an_event_file_that_cannot_be_made_is_said_once(tmp_path, monkeypatch):
    def none(*args):
        raise PermissionError(errno.EACCES, "Permission denied", b"somewhere/events")

    monkeypatch.setattr(EventFile, "__init__", none)
    console = Console(file=io.StringIO(), width=200)
    tell_all(Report(tmp_path, tensorboard=True, console=console))
    told = "warning: nothing more for TensorBoard: somewhere/events: Permission denied; the training goes on"
    assert warnings_of(console) == [told]


def test_settings_of_any_letters_reach_the_table_of_runs(tmp_path):
    console = Console(file=io.StringIO(), width=200)
    tell_all(Report(tmp_path, tensorboard=True, console=console))
    assert warnings_of(console) == []
    assert flatten(FACTS)["model.root"] == "Größe \ufffd"


def test_the_end_of_a_run_is_told_again_only_if_it_went_on(tmp_path):
    for last, ended in ((5, False), (5, True), (10, True)):
        report = Report(tmp_path, tensorboard=True, resume_step=5 if ended else None, ended=ended, console=quiet())
        if last > 5 or not ended:
            report.step({"step": last, "epoch": 1, "loss": 1.0, "top1": 0.5, "lr": 0.1})
        report.confusion("test/confusion", torch.eye(2, dtype=torch.int64), ["a", "b"])
        report.hparams({"seed": 0}, {"test/top1": 0.5})
        report.close()
    events = read(tmp_path)
    assert [event.step for event in events.Scalars("best/test/top1")] == [5, 10]
    assert [event.step for event in events.Images("test/confusion")] == [5, 10]
