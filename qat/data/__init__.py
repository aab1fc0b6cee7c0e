"""What the recipes train on: data modules whose order and augmentation are functions of the seed and the epoch."""

from qat.data.cifar10 import CIFAR10DataModule
from qat.data.digits import DigitsDataModule
from qat.data.keywords import KeywordsDataModule
from qat.data.shapes import ShapesDataModule
from qat.data.text import TextDataModule

__all__ = ["CIFAR10DataModule", "DigitsDataModule", "KeywordsDataModule", "ShapesDataModule", "TextDataModule"]
