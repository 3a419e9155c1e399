"""Data sets as uint8 batches: three honest splits, from memory or streamed from files."""

from cnntrain.data.build import build_data, build_eval_data
from cnntrain.data.common import Data, TrainData
from cnntrain.data.loaders import Loader

__all__ = ["Data", "Loader", "TrainData", "build_data", "build_eval_data"]
