"""Data sets as uint8 batches: three honest splits, from memory or streamed from files."""

from cnntrain.data.build import build_data
from cnntrain.data.common import Data
from cnntrain.data.loaders import Loader

__all__ = ["Data", "Loader", "build_data"]
