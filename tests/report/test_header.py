"""What a run says of itself before its first step."""

import re
from dataclasses import replace
from pathlib import Path
from unittest import mock

from cnntrain.config.compose import compose_settings
from cnntrain.report.run_report import Report
from cnntrain.report.summary import show_header
from cnntrain.runtime.world import World
from cnntrain.training.build import build_train_job


def facts(*words, processes=1):
    """The rows of the header, each as one line."""
    settings = compose_settings(["data.limit=200", "trainer.epochs=1000", "trainer.device=cpu", *words])
    report = Report(None, tensorboard=False)
    job = replace(build_train_job(settings, report), world=World(0, processes))
    with mock.patch.object(report, "header") as header:
        show_header(job, 7000, Path("run"), report)
    rows, name = {}, ""
    for first, line in header.call_args.args[1]:
        name = first or name
        rows[name] = f"{rows.get(name, '')} {line}".strip()
    return rows


def test_the_header_names_what_ends_a_run_and_when_it_is_saved():
    rows = facts("trainer.max_time=8s", "trainer.save_every=90s")
    what = "fitted to 8s, or to 1,000 epochs, 7,000 steps of 32 images where these end first"
    assert rows["schedule"] == f"onecycle, {what}"
    assert rows["saves"] == "every 90s, and after each epoch"
    assert facts("trainer.max_time=8")["schedule"] == f"onecycle, {what}"  # a bare number counts seconds
    assert facts("trainer.save_every=50")["saves"] == "every 50 steps, and after each epoch"
    rows = facts()
    assert rows["schedule"] == "onecycle, 1,000 epochs, 7,000 steps of 32 images"
    assert "saves" not in rows


def test_the_header_names_what_steps_at_another_rate():
    rows = facts("optimizer=muon", "optimizer.others_lr=0.003", "optimizer.lr_base_batch=null")
    assert rows["optimizer"].endswith(", all else by adamw at 0.003")
    rows = facts(
        "optimizer=muon", "optimizer.others_lr=null", "optimizer.lr_base_batch=128"
    )  # both rates follow the batch
    rate, others = re.search(r"rate (\S+) .*, all else by adamw at (\S+)$", rows["optimizer"]).groups()
    assert rate == others
    assert facts("optimizer.lr_factors={conv1*: 3}")["optimizer"].endswith(", weight decay 0.0005, conv1* x 3")


def test_the_header_names_the_processes_and_how_they_compute():
    device = facts()["device"]
    several = facts("trainer.grad_exchange=bf16", "trainer.deterministic=true", processes=2)["device"]
    assert several == f"2 processes, each on {device}, deterministic, gradients sent in bf16"
    assert facts("trainer.grad_exchange=bf16")["device"] == device  # nothing is sent
