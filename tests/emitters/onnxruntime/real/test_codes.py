import pytest
import torch
from torch import nn

import qat
from qat.emitters.onnxruntime.real.codes import check_codes
from qat.errors import ExportError


def test_files_of_other_weights_are_refused(tmp_path):
    torch.manual_seed(0)
    x = torch.randn(2, 32)
    first, second = (qat.quantize(nn.Linear(32, 8).eval(), [x], quant="w4-weight-only") for _ in range(2))
    qat.export(first, tmp_path / "model.onnx")
    with pytest.raises(ExportError, match="holds other codes of 'weight' than the program"):
        check_codes(second, tmp_path / "model.onnx")
    with pytest.raises(ExportError, match="holds other codes"):
        qat.verify(second, tmp_path / "model.onnx", [x])
