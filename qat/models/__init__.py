"""The networks of the recipes and the Lightning module that trains them; none knows of quantization."""

from qat.models.classifier import Classifier
from qat.models.digits_cnn import DigitsCNN
from qat.models.resnet20 import ResNet20

__all__ = ["Classifier", "DigitsCNN", "ResNet20"]
