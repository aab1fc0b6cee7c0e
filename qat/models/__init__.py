"""The networks of the recipes and the Lightning modules that train them; none knows of quantization."""

from qat.models.anchor_free import AnchorFreeDetector
from qat.models.classifier import Classifier
from qat.models.detector import Detector
from qat.models.digits_cnn import DigitsCNN
from qat.models.ds_cnn import DSCNN
from qat.models.gpt import GPT
from qat.models.language_model import LanguageModel
from qat.models.mobilenet_v2 import MobileNetV2
from qat.models.resnet8 import ResNet8
from qat.models.resnet20 import ResNet20
from qat.models.vision_transformer import VisionTransformer

__all__ = [
    "AnchorFreeDetector",
    "Classifier",
    "DSCNN",
    "Detector",
    "DigitsCNN",
    "GPT",
    "LanguageModel",
    "MobileNetV2",
    "ResNet20",
    "ResNet8",
    "VisionTransformer",
]
