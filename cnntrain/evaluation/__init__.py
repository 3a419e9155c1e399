"""What a trained network is worth: the scores of a split, calibration, intervals, the worst images."""
