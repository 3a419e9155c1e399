"""The machine that a run lives on: its device, its processes and its signals."""
