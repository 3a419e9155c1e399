"""`cnntrain play`: a page on this machine in which one asks a trained network, or watches one learn."""
