"""cnntrain: a command-line trainer for convolutional image classifiers."""

__version__ = "0.1.0"
