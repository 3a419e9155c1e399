"""The networks: our own, those of torchvision and timm, and the user's."""
