"""The rule by which a network for large images takes small ones, and others than it was built for."""
