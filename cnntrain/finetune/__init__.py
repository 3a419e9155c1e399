"""Transfer learning: layer groups, what of them learns and how fast, and the proof that it was so."""
