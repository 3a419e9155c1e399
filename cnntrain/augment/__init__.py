"""Batch augmentations on the training device: uint8 images in, normalized float32 images out."""
