"""The faults of a line of words, for tests of what they say."""

from pathlib import Path

from cnntrain.config.compose import compose_line
from cnntrain.config.errors import ConfigErrors


def faults(*words: str, config_dir: Path | None = None, multirun: bool = False) -> list[str]:
    try:
        compose_line(list(words), config_dir=str(config_dir) if config_dir else None, multirun=multirun)
    except ConfigErrors as errors:
        return errors.faults
    return []


def write(folder: Path, path: str, text: str) -> None:
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_text(text)
