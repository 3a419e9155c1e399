"""Charts, drawn with matplotlib, and grids of images, drawn with Pillow."""

import logging

# Where matplotlib keeps its list of fonts, and that it makes it anew, is no news for somebody who trains a network.
logging.getLogger("matplotlib").setLevel(logging.ERROR)
