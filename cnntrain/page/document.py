"""The frame of the page: one file that asks for nothing outside itself, and runs nothing."""

import base64
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cnntrain import __version__
from cnntrain.config.schema.scores import TITLES, main_score
from cnntrain.evaluation.split_scores import SPLIT_WORDS
from cnntrain.page.answers import interval
from cnntrain.page.markup import Html, tag
from cnntrain.page.run import Run
from cnntrain.storage.run_record import now
from cnntrain.text import clock, percent

STYLE = Path(__file__).with_name("style.css")
Scores = Callable[[str], Mapping[str, Any]]


def document(title: str, header: Html, parts: Sequence[Html]) -> str:
    """The whole file: the browser is told to refuse scripts, and whatever is not in it.

    Args:
        parts: sections, each with its anchor.
    """
    style = STYLE.read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    top = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", title),
        tag("style", Html(style)),
    )
    made = tag("footer", f"Made by cnntrain {__version__} on {now()}. This file needs no network and runs no code.")
    main = tag("main", header, *parts, made)
    skip = tag("a", "Skip to the findings", href="#findings", class_="skip")
    return f"<!DOCTYPE html>\n{tag('html', top, tag('body', skip, main), lang='en')}\n"


def head(run: Run, scores: Scores, parts: Sequence[Html]) -> Html:
    """What was trained, how it ended, and the figures that everybody asks for first."""
    started = str(run.environment.get("started", ""))[:16].replace("T", " ")
    status = {"done": "finished", "interrupted": "was interrupted", "failed": "failed"}.get(
        str(run.results.get("status")), "has not come to its end"
    )
    words = f"A run {'of ' + started if started else ''} that {status}".replace("  ", " ")
    error = run.results.get("error")
    facts = [
        tag("div", tag("dt", name), tag("dd", value, tag("small", note) if note else None))
        for name, value, note in _facts(run, scores)
    ]
    return tag(
        "header",
        tag("h1", run.title),
        tag("p", f"{words}: {error}" if error else f"{words}.", class_="about"),
        tag("dl", *facts, class_="facts"),
        tag("nav", *_links(parts), aria_label="sections"),
    )


def _facts(run: Run, scores: Scores) -> list[tuple[str, object, object]]:
    facts: list[tuple[str, object, object]] = []
    for split in ("test", "val"):
        found = scores(split)
        key = main_score(found)
        if found.get(key) is not None:
            name, limits = f"{SPLIT_WORDS[split]} {TITLES[key]}", found.get("intervals", {}).get(key)
            facts.append((name, percent(found[key]), interval(limits)))
    epochs, planned = len(run.history.epochs), run.settings.trainer.epochs
    best = run.best_epoch
    facts.append(("epochs", f"{epochs} of {planned}", f"best {best}" if best else ""))
    seconds = run.number("train_seconds") or sum(row.seconds or 0.0 for row in run.history.epochs)
    facts.append(("training time", clock(seconds), run.environment.get("device", "")))
    if parameters := run.number("parameters"):
        trainable = run.number("trainable_parameters") or parameters
        facts.append(
            ("parameters", f"{parameters:,.0f}", f"{trainable:,.0f} learned" if trainable < parameters else "")
        )
    return facts


def _links(parts: Sequence[Html]) -> list[Html]:
    """The headings, as links to their sections."""
    found = (re.match(r'<section id="(\w+)"><h2>(.*?)</h2>', part) for part in parts)
    return [tag("a", Html(match[2]), href=f"#{match[1]}") for match in found if match]
