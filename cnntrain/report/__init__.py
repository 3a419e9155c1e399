"""What a run tells: to the terminal, metrics.csv, train.log and TensorBoard."""
