"""What the coverage of a target promises before training, lowering keeps: every operation by a rule or by another."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qat
from qat.errors import PreparationError
from qat.inject.operations import canonical_name
from qat.inject.pointwise import NONLINEAR
from qat.lowering.rules import RULES
from qat.targets import ONNXRUNTIME


def written(net, x):
    y = torch.zeros_like(x)
    y.copy_(x)
    y[:, :2] = 0.5
    return y


def largest(dims):
    pool, shape = (
        getattr(F, f"adaptive_max_pool{dims}d_with_indices"),
        {1: (8, 64), 2: (8, 8, 8), 3: (8, 2, 4, 8)}[dims],
    )
    return lambda net, x: pool(x.reshape(-1, *shape), 2)[0]


BODIES = {  # operations that an exported graph has under other names: (what a network writes, features behind it)
    **{f"adaptive_max_pool{dims}d_with_indices": (largest(dims), 8 * 2**dims) for dims in (1, 2, 3)},
    "copy": (written, 512),
    "setitem": (written, 512),
    "cpu": (lambda net, x: x.cpu(), 512),
    "dropout1d": (lambda net, x: F.dropout1d(x.flatten(2), 0.1, net.training), 512),
    "dropout2d": (lambda net, x: F.dropout2d(x, 0.1, net.training), 512),
    "dropout3d": (lambda net, x: F.dropout3d(x[:, :, None], 0.1, net.training), 512),
    "dstack": (lambda net, x: torch.dstack([x, x]), 1024),
    "hstack": (lambda net, x: torch.hstack([x, x]), 1024),
    "fliplr": (lambda net, x: torch.fliplr(x), 512),
    "float": (lambda net, x: x.float(), 512),
    "double": (lambda net, x: x.double().to(torch.float32), 512),
    "type": (lambda net, x: x.type(torch.float32), 512),
    "get": (lambda net, x: x.mT, 512),
    "getitem": (lambda net, x: x[:, ::2, 1:, None, -1], 8 // 2 * 7),
    "interpolate": (lambda net, x: F.interpolate(x, scale_factor=2.0), 2048),
    "take_along_dim": (lambda net, x: torch.take_along_dim(x, torch.tensor([3, 0]).view(1, 2, 1, 1), 1), 128),
    "tensor_split": (lambda net, x: torch.tensor_split(x, 3, 1)[0], 3 * 64),
}
#: They move or join samples of the batch, whatever their arguments, and have no integer form.
ABOUT_THE_BATCH = {
    "flipud": lambda net, x: torch.flipud(x),
    "vstack": lambda net, x: torch.vstack([x, x]),
    "ravel": lambda net, x: x.ravel().reshape(x.shape),
}


def test_every_operation_of_a_target_has_a_rule_or_a_network_here():
    ruled = {canonical_name(operation._schema.name.partition("::")[2]) for operation in RULES}
    missing = ONNXRUNTIME.operations - ruled - NONLINEAR - set(BODIES) - {"bfloat16", "cuda", "half"}
    assert not missing
    assert not set(BODIES) & ruled


@pytest.mark.parametrize("name", BODIES)
def test_other_names_lower_to_the_same_codes(name, trained_network):
    body, features = BODIES[name]
    network, images = trained_network(body, features, {}, target="onnxruntime")
    with torch.no_grad():
        assert torch.equal(network(images), qat.convert(network)(images))


@pytest.mark.parametrize("name", ABOUT_THE_BATCH)
def test_what_is_about_the_batch_is_refused_before_training_with_its_line(name, trained_network):
    with pytest.raises(PreparationError, match=rf"{name} in the network at .*test_rules\.py:\d+.*module="):
        trained_network(ABOUT_THE_BATCH[name], 512, {}, target="onnxruntime")


class Filled(nn.Module):
    """Joins values with a constant that takes its shape, or its type alone, from a value."""

    def __init__(self, made):
        super().__init__()
        self.first, self.last = nn.Linear(8, 8), nn.Linear(8, 4)
        self.made = made

    def forward(self, x):
        x = self.first(x)
        constant = self.made(x)
        constant[..., :4] = x[..., 4:].relu()
        return self.last(torch.cat([constant, x], 1))


FILLED = {
    "zeros_like": torch.zeros_like,
    "ones_like": lambda x: torch.ones_like(x, dtype=torch.float32),
    "full_like": lambda x: torch.full_like(x, 0.5),
    "empty_like": lambda x: torch.empty_like(x).fill_(0.25),
    "new_zeros": lambda x: x.new_zeros(x.shape),
    "new_ones": lambda x: x.new_ones(x.shape),
    "new_full": lambda x: x.new_full(x.shape, -0.5),
}


@pytest.mark.parametrize("made", FILLED.values(), ids=FILLED)
def test_a_constant_of_the_shape_of_a_value_is_a_constant(made, tmp_path):
    network, batch = Filled(made), torch.randn(4, 6, 8, generator=torch.Generator().manual_seed(0))
    qat.prepare(network, batch, "w8a8")
    network(batch)
    program = qat.convert(network.eval())
    qat.export(program, tmp_path / "model.onnx", runtime="onnxruntime")
    for inputs in (batch, batch[:3], batch[:, :2]):
        with torch.no_grad():
            assert torch.equal(network(inputs), program(inputs))
        assert qat.verify(program, tmp_path / "model.onnx", [inputs]).ok
