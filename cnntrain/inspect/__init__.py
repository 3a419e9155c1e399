"""Looking at networks and data: nothing of training imports this."""
