"""Quantization-aware training for PyTorch Lightning, ending in a verified integer model.

    Trainer(callbacks=[qat.QATCallback("w4a8")]).fit(model, datamodule)

The names below are the public surface. They are imported when first used, so that `import qat` stays light.
"""

import importlib

__version__ = "0.1.0"

#: Public name -> module that defines it.
_PUBLIC = {
    "AdaRound": "qat.post_training",
    "Handle": "qat.inject.handle",
    "IntegerProgram": "qat.integer.program",
    "PostTraining": "qat.post_training",
    "Progress": "qat.schedule",
    "QATCallback": "qat.callback",
    "QATError": "qat.errors",
    "QuantConfig": "qat.spec",
    "QuantSpec": "qat.spec",
    "QuantState": "qat.schedule",
    "Rule": "qat.spec",
    "Schedule": "qat.schedule",
    "VerificationReport": "qat.verification",
    "convert": "qat.lowering.convert",
    "export": "qat.emitters",
    "prepare": "qat.preparation",
    "prepare_alike": "qat.inject.alike",
    "quantize": "qat.post_training",
    "verify": "qat.verification",
}

__all__ = ["__version__", *sorted(_PUBLIC)]


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'qat' has no attribute {name!r}; it has {', '.join(__all__)}")
    value = getattr(importlib.import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__():
    return __all__
