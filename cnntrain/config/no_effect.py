"""Words that act on nothing: a mistake where the user typed them, and none as a default or in a preset's file."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from cnntrain.config import overrides
from cnntrain.config.advice import advise_data, holds_images
from cnntrain.config.changes import yaml_word
from cnntrain.config.paths import expand_path
from cnntrain.config.run_config import RunConfig
from cnntrain.config.schema.needs import RULES, Rule
from cnntrain.config.schema.settings import Settings

OFF: tuple[Any, ...] = (None, False, 0, "", "auto", [])  # values that ask for nothing


@dataclass(frozen=True)
class Finding:
    """A rule that some words of a line meet.

    Attributes:
        rule: its number.
        words: those words.
        fault: the line to tell; empty where they act.
    """

    rule: int
    words: tuple[str, ...]
    fault: str


def findings(settings: Settings, words: Sequence[str]) -> Iterator[Finding]:
    """The findings of the rules on the words that a run was typed with."""
    faulty_keys = set()
    for number, rule, matches in rules_met(words):
        key, value, _ = matches[0]
        if key not in faulty_keys:
            text = "" if rule.acts(settings) else rule.text.format(**_text_values(settings, value))
            yield Finding(number, tuple(word for *_, word in matches), f"{key.rstrip('=')}: {text}" if text else "")
            faulty_keys |= {key} if text else set()


def rules_met(words: Sequence[str]) -> list[tuple[int, Rule, list[tuple[str, str, str]]]]:
    """The rules that speak of some words, each with its number, and with key, value and word of what it speaks of."""
    items = list(_values_of(words))
    matches = []
    for number, rule in enumerate(RULES):
        matches_of_rule = [
            item for name in rule.keys.split() for item in items if item[0] == name or item[0].startswith(f"{name}.")
        ]
        matches += [(number, rule, matches_of_rule)] if matches_of_rule else []
    return matches


def faults(jobs: Iterable[tuple[Settings, Sequence[str]]]) -> list[str]:
    """The lines for words that act in none of the jobs, and for choices and listed values that do not in their own.

    Args:
        jobs: the settings of each, and the words of it that were typed.
    """
    by_job = [list(findings(settings, words)) for settings, words in jobs]
    common_words = (
        set.intersection(*({word for one in job for word in one.words} for job in by_job)) if by_job else set()
    )
    acting_rules = {one.rule for job in by_job for one in job if not one.fault}

    def is_spared(one: Finding) -> bool:
        return one.rule in acting_rules and can_go(one) and common_words.issuperset(one.words)

    return [one.fault for job in by_job for one in job if one.fault and not is_spared(one)]


def can_go(finding: Finding) -> bool:
    """Whether a run is the same without the words that do not act: a choice is never left out."""
    return RULES[finding.rule].idle and all("." in word.partition("=")[0] for word in finding.words)


def _values_of(words: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """The keys that words give a value that asks for something, with the value as typed and the word."""
    for override in overrides.parse(list(words))[0]:
        key, value, word = override.key_or_group, override.value(), override.input_line or ""
        text = value if isinstance(value, str) else overrides.value_text(override)
        if key == "augment" and not isinstance(value, dict):
            pairs = [(f"augment.{name}", True) for name in (value if isinstance(value, list) else [value])]
        elif key in ("schedule", "finetune") and not isinstance(value, dict):
            pairs = [(f"{key}=", value)]
        else:
            pairs = list(_leaves(key, value))
        yield from ((name, text, word) for name, part in pairs if part not in OFF)


def _leaves(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, dict):
        yield key, value
        return
    for name, part in value.items():
        yield from _leaves(f"{key}.{name}", part)


def _text_values(settings: Settings, value: str) -> dict[str, Any]:
    """What the texts of the rules can name."""
    drop, _ = settings.schedule.first_drop()
    root = expand_path(value)
    suggestion = advise_data(value) if os.path.isfile(root) or holds_images(root) else ""
    return {
        "s": settings,
        "given": value,
        "drop": re.sub(r"\.0\b", "", f"schedule.{drop}={getattr(settings.schedule, drop)}") if drop else "",
        "meant": suggestion
        or "choose the data that lies there, such as data=mnist or data=imagefolder, or leave it out",
    }


# --- resume, eval, predict, explain, report and export --------------------------------------------------------------

TRAINING = (
    *("augment.", "optimizer.", "schedule.", "loss.", "finetune.", "trainer."),
    *("data.limit", "data.per_class", "data.sampling"),
)
# What of these sections a trained network is still asked for.
USED_KEYS = (
    *("finetune.head", "trainer.device", "trainer.precision", "trainer.threads", "trainer.channels_last"),
    *("trainer.deterministic", "trainer.tensorboard"),
)
NOT_OF_EXPORT = ("trainer.precision", "trainer.channels_last", "trainer.tensorboard", "trainer.deterministic")
# What begins the words that are for the images of the run; others of `data.` prepare files that are given as well.
DATA_WORDS = {"eval": "data.", "report": "data.", "explain": "data.root=", "play": "data.root=", "export": "data.root="}
START_KEYS = ("model.pretrained", "model.weights", "model.new_head", "model.allow_missing", "model.allow_unused")


def faults_of_saved(command: str, config: RunConfig, *, has_weights: bool = True) -> list[str]:
    """The lines for words that change nothing of what a command does with a run that exists.

    Args:
        command: resume, eval, predict, explain, play, report, export, or load, which is that of Python.
        has_weights: the run has weights of its own by now.
    """
    lines = []
    for key, change in config.changes.items():
        value = yaml_word(change.after)
        if has_weights and key in START_KEYS:
            lines.append(f"{key}: is for the start, and the run has weights of its own (given {value}); leave it out")
        elif command != "resume" and key.startswith(TRAINING) and key not in USED_KEYS:
            lines.append(f"{key}: {command} trains nothing (given {value}); leave it out")
        elif command == "export" and key in NOT_OF_EXPORT:
            lines.append(f"{key}: what leaves is in fp32 and says nothing of it (given {value}); leave it out")
        elif command in ("predict", "load") and key == "data.root":
            lines.append(f"{key}: {command} reads no images of a data set (given {value}); leave it out")
    if command == "resume":
        return lines or faults([(config.settings, config.overrides)])
    if prefix := DATA_WORDS.get(command):
        lines += faults([(config.settings, [word for word in config.overrides if word.startswith(prefix)])])
    return lines
