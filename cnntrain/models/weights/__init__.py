"""Weights to start from: files, published weights, and how they meet the tensors of a network."""
