"""The typed settings: dataclasses with the limits of each number beside it. Nothing here imports torch."""
