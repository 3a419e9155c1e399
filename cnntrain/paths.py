"""Where our own files lie."""

from pathlib import Path


def conf_dir() -> Path:
    """The folder of our YAML files: inside the package of a wheel, above it in a checkout."""
    package = Path(__file__).resolve().parent
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "train.yaml").is_file():
            return folder
    raise FileNotFoundError(f"{package / 'conf'}: the configuration files are missing; install cnntrain again")
