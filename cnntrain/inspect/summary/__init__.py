"""A network taken apart: its layers with their sizes, sums, multiply-adds and receptive fields."""
