"""Our own networks, each after its paper."""
