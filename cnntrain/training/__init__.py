"""A training: its objects, its state, the loop, and the scores."""
