"""Values that leave torch's calls, or the real numbers, are refused with their line instead of passing unquantized."""

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.functional_tensor import FunctionalTensor, FunctionalTensorMode

import qat
from qat.errors import PreparationError


class Between(nn.Module):
    """Two linear layers with a body between them."""

    def __init__(self, body):
        super().__init__()
        self.first, self.body, self.second = nn.Linear(8, 8), body, nn.Linear(8, 8)
        self.register_buffer("seen", torch.zeros(8))
        self.plain = torch.full((8,), 2.0)  # no buffer, but there before

    def forward(self, x):
        return self.second(self.body(self, self.first(x)))


def sparse_product(network, x):
    return torch.sparse.mm(torch.eye(8).to_sparse(), x.t()).t()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (
            lambda net, x: torch.from_numpy(x.detach().numpy() * 2),
            "linear in second at .* no torch call of the network made",
        ),
        (
            lambda net, x: torch.vmap(lambda row: row * 2.0)(x),
            r"mul in the network at .*test_followed\.py:\d+ reads a tensor that no",
        ),
        (
            lambda net, x: torch.fft.fft(x).abs(),
            r"fft_fft in the network at .*test_followed\.py:\d+ computes with complex numbers",
        ),
        (lambda net, x: torch.view_as_real(torch.view_as_complex(x.view(-1, 4, 2))).flatten(1), "complex numbers"),
        (
            lambda net, x: torch.nested.nested_tensor([x, x], layout=torch.jagged).to_padded_tensor(0.0)[0],
            r"in the network at .*test_followed\.py:\d+ computes with nested tensors",
        ),
        (sparse_product, r"sparse_mm in the network at .* computes with sparse tensors \(sparse_coo\)"),
        (lambda net, x: torch.quantize_per_tensor(x, 0.1, 0, torch.qint8).dequantize(), "quantized by other means"),
    ],
)
@pytest.mark.parametrize("target", ["onnxruntime", None])
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
def test_what_cannot_be_followed_is_refused_with_its_line(body, reason, target):
    with pytest.raises(PreparationError, match=reason):
        qat.prepare(Between(body), torch.randn(4, 8), target=target)


@pytest.mark.parametrize("to_sparse", [Tensor.to_sparse, Tensor.to_sparse_csr])
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta state:UserWarning")
def test_a_buffer_that_is_sparse_is_refused_where_it_is_used(to_sparse):
    network = Between(lambda net, x: (net.neighbours @ x.t()).t())
    network.register_buffer("neighbours", to_sparse(torch.eye(8)))
    with pytest.raises(PreparationError, match=r"matmul in the network at .*:\d+ computes with sparse tensors"):
        qat.prepare(network, torch.randn(4, 8))


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, gradient):
        return 2 * ctx.saved_tensors[0] * gradient


@pytest.mark.parametrize(
    "body",
    [
        lambda net, x: Square.apply(x),
        lambda net, x: x * net.plain,
        lambda net, x: x * torch.tensor([2.0]),
        lambda net, x: x.data.T.mT * torch.arange(8).float(),
        lambda net, x: x * (torch.arange(8) / 2),
    ],
)
def test_what_is_made_by_calls_or_was_there_before_is_followed(body):
    handle = qat.prepare(Between(body), torch.randn(4, 8), target=None)
    assert {"first.output", "mul.output", "second.output"} <= set(handle.quantizers)


def keep_a_mean(network, x):
    if network.training:
        network.seen.mul_(0.9).add_(x.detach().mean(0), alpha=0.1)
    return x


def keep_the_last(network, x):
    if network.training:
        network.seen[:] = x.detach().mean(0)
    return x


@pytest.mark.parametrize("body", [keep_a_mean, keep_the_last])
def test_a_statistic_kept_in_train_mode_is_no_part_of_the_network(body):
    network = Between(body)
    handle = qat.prepare(network, torch.randn(4, 8))
    assert not network.seen.any()
    network(torch.randn(4, 8))
    assert network.seen.any() and not handle.plan.float_layers
    inputs = torch.randn(4, 8)
    network.eval()
    assert torch.equal(qat.convert(network)(inputs), network(inputs))


def test_real_values_made_of_integers_are_values():
    class Weighted(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 3)

        def forward(self, x, mask):
            return self.linear(x) * (1.0 - mask)

    network = Weighted()
    mask = torch.tensor([[0, 1, 0], [1, 0, 0]])
    handle = qat.prepare(network, (torch.randn(2, 3), mask), target=None)
    assert "rsub.output" in handle.quantizers
    assert network(torch.randn(2, 3), mask)[0, 1] == 0


def test_tensors_that_a_compilation_left_behind_are_passed_over():
    with FunctionalTensorMode():
        left = FunctionalTensor.to_functional(torch.ones(3))
    handle = qat.prepare(nn.Sequential(nn.Linear(3, 3), nn.ReLU()), torch.randn(2, 3))
    assert left.shape == (3,) and list(handle.quantizers) == ["input.input", "0.output", "0.weight"]


def test_parameters_of_a_lazy_layer_elsewhere_are_passed_over():
    elsewhere = nn.LazyLinear(3)
    handle = qat.prepare(nn.Linear(2, 2), torch.randn(2, 2))
    assert handle.quantizers and elsewhere.has_uninitialized_params()
