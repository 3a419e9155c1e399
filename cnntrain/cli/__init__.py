"""The command line: the first word picks a command. Nothing here imports torch."""

from cnntrain.cli.entry import main

__all__ = ["main"]
