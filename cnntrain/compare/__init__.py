"""Comparisons: every combination of listed values as a run, and one table of all."""
