"""Quantization without training: what it takes (`PostTraining`), and `quantize` and `calibrate`, which do it."""

from qat.post_training.calibration import calibrate, quantize
from qat.post_training.options import AdaRound, PostTraining

__all__ = ["AdaRound", "PostTraining", "calibrate", "quantize"]
