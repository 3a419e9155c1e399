"""A look at the data of a run: what in it is damaged, copied, contradictory or missing."""
