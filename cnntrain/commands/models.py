"""`cnntrain models [WORD ...]`: the networks that model= knows. Without torch, so at once."""

import textwrap

from cnntrain.errors import ConfigError
from cnntrain.faults import hint, nearest
from cnntrain.paths import conf_dir


def models(words: list[str]) -> None:
    """Print each name with its line; with words, those whose name or line holds one of them."""
    known = descriptions()
    lowered = [word.lower() for word in words]
    chosen = {
        name: line
        for name, line in known.items()
        if not words or any(word in f"{name} {line}".lower() for word in lowered)
    }
    if not chosen:
        raise ConfigError(
            f"models: none matches {' '.join(words)}" + hint(nearest(words[0], known), "`cnntrain models` lists all")
        )
    width = max(len(name) for name in chosen) + 2
    for name, line in chosen.items():
        print(
            textwrap.fill(
                line, 80, initial_indent=f"{name:<{width}}", subsequent_indent=" " * width, break_on_hyphens=False
            )
        )


def descriptions() -> dict[str, str]:
    """The first line of each network's file in conf/model, by its name."""
    files = sorted(file for file in (conf_dir() / "model").glob("*.yaml") if not file.stem.startswith("for_"))
    return {file.stem: file.read_text(encoding="utf-8").partition("\n")[0].removeprefix("#").strip() for file in files}
