"""What a config will do to the images and to its run, as pictures."""
