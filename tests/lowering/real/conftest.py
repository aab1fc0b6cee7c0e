import pytest
import torch

import qat


@pytest.fixture
def program_of():
    """Quantizes a network on one input."""

    def of(network, x, quant="w8-weight-only"):
        torch.manual_seed(0)
        return qat.quantize(network.eval(), [x], quant=quant)

    return of
