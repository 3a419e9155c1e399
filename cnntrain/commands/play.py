"""`cnntrain play RUN_DIR_OR_CHECKPOINT`: a page on this machine in which one plays with a trained network."""

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from cnntrain.config.run_config import RunConfig
from cnntrain.config.schema.run_commands import PlayArgs
from cnntrain.play.network import Network
from cnntrain.play.progress import progress
from cnntrain.play.site import HOST, Site, serve
from cnntrain.report.run_report import Report
from cnntrain.storage.run_folder import is_in_use
from cnntrain.storage.run_record import is_done
from cnntrain.text import printable

NICENESS = 10  # a training beside it goes first
LOOK_AGAIN = 0.5  # seconds between looks for the first save


def run(args: PlayArgs, config: RunConfig | None = None) -> dict[str, Any]:
    """Serve the page until Ctrl-C.

    Returns:
        "address": empty where Ctrl-C came before there was one.
    """
    report = Report(None, tensorboard=False)
    try:
        with suppress(OSError):
            os.nice(NICENESS)
        torch.set_num_threads(1)
        words = [*args.words]
        if not any(word.startswith("trainer.device=") for word in words):
            words.append("trainer.device=cpu")
        try:
            _wait_for_save(args.run, report)
        except KeyboardInterrupt:
            return {"address": ""}
        network = Network(args.run, words, report)
        told = network.about()
        site = Site(network, lambda: progress(args.run, network.epochs, is_done(args.run)))
        server = serve(site, args.port)
        address = f"http://{HOST}:{server.port}/{site.token}/"
        report.say(f"{told['title']}: play with it at")
        report.say(address, copied=True)
        report.say("It is open to this machine alone. Ctrl-C closes it.")
        try:
            server.serve_forever()
        finally:
            site.close()
    finally:
        report.close()
    return {"address": address}


def _wait_for_save(run: Path, report: Report) -> None:
    """Until a run that is being trained has saved once; of any other, `Network` says what is missing."""
    last = run / "checkpoints" / "last"
    if last.is_dir() or not is_in_use(run):
        return
    report.say(
        f"{printable(str(run))}: in training, with nothing saved yet; waiting for its first save. Ctrl-C ends this."
    )
    while not last.is_dir() and is_in_use(run):
        time.sleep(LOOK_AGAIN)
