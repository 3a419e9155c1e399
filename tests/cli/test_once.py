"""Work is done once: each command composes its config once, and checks it once."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl

from cnntrain import cli
from cnntrain.cli import dispatch
from cnntrain.config import compose, messages

QUICK = ("model=lenet1", "data.limit=20", "data.batch_size=10", "trainer.probe=0", "trainer.tensorboard=false")


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often a config was composed and checked."""
    counted: Counter[str] = Counter()

    def count(owner: Any, name: str, what: str) -> None:
        work = getattr(owner, name)

        def counting(*args: Any, **named: Any) -> Any:
            counted[what] += 1
            return work(*args, **named)

        monkeypatch.setattr(owner, name, counting)

    count(ConfigLoaderImpl, "load_configuration", "composed")
    count(messages, "broken_rules", "checked")
    return counted


def counted(counts: Counter[str], *words: str) -> tuple[int, int]:
    """The compositions and the checks of one line, in a process that has composed nothing yet."""
    compose._own_composer.cache_clear()
    counts.clear()
    assert cli.main(words) == 0, words
    return counts["composed"], counts["checked"]


@pytest.mark.slow
def test_each_command_composes_once_and_checks_once(
    here: Path, counts: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert counted(counts, *QUICK, "trainer.epochs=1", "out=run") == (1, 1)
    assert counted(counts, "check", *QUICK) == (1, 1)
    assert counted(counts, "summary", "model=lenet1") == (1, 1)
    assert counted(counts, "preview", *QUICK, "images=1") == (1, 1)
    assert counted(counts, "find_lr", *QUICK, "steps=20") == (1, 1)
    assert counted(counts, "eval", "run") == (0, 1)
    assert counted(counts, "eval", "run", "data.batch_size=7") == (0, 1)
    assert counted(counts, "explain", "run", "what=filters") == (0, 1)
    assert counted(counts, "predict", "run", "images=run/explain/filters.png") == (0, 1)
    assert counted(counts, "eval", "run/checkpoints/last") == (0, 1)
    assert counted(counts, "resume", "run", "trainer.epochs=2") == (0, 1)
    monkeypatch.setattr(dispatch, "_load", lambda command: lambda args, runs: len(runs) - 4)  # which starts processes
    assert counted(counts, "compare", *QUICK, "seed=0,1", "optimizer.lr=0.1,0.2") == (1, 4)


def test_words_that_may_not_act_cost_no_second_look(here: Path, counts: Counter[str]) -> None:
    assert counted(counts, *QUICK, "trainer.epochs=1", "schedule=cosine", "optimizer.lr=0.1", "augment=hflip") == (1, 1)


def test_a_sweep_checks_each_job_before_the_first_one_starts_and_where_it_runs(
    here: Path, counts: Counter[str]
) -> None:
    """Its composing is Hydra's: the sweep, and each job in the sweeper and in the launcher."""
    assert counted(counts, "-m", "seed=0,1", *QUICK, "trainer.epochs=1", "out=many") == (1 + 1 + 2 * 2, 2 * 2)
