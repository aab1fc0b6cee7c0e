"""The networks of the recipes and the Lightning modules that train them; none knows of quantization."""

from qat.models.anchor_free import AnchorFreeDetector
from qat.models.classifier import Classifier
from qat.models.detector import Detector
from qat.models.digits_cnn import DigitsCNN
from qat.models.gpt import GPT
from qat.models.language_model import LanguageModel
from qat.models.resnet20 import ResNet20

__all__ = ["AnchorFreeDetector", "Classifier", "Detector", "DigitsCNN", "GPT", "LanguageModel", "ResNet20"]
