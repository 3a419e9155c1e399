"""The types of what `import cnntrain` offers."""

from cnntrain.evaluation.classifier import Classifier as Classifier
from cnntrain.evaluation.classifier import load as load
from cnntrain.evaluation.prediction import Prediction as Prediction

__version__: str
