"""A rule leaves a call in float: what is planned around it, how it reads, and what the forward computes."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from qat.errors import PreparationError
from qat.inject.islands import IslandCall, NoIsland, computed, island_call, mark, reason_against_island, unmarked
from qat.inject.operations import operation_of
from qat.inject.prepare import prepare
from qat.integer.values import Grid
from qat.lowering.convert import convert
from qat.spec import QuantConfig, Rule


def config(*names, **settings):
    return QuantConfig(rules=[Rule(name, quantize=False, **settings) for name in names])


def call_of(function, *args, **kwargs):
    return island_call(operation_of(function), function, args, kwargs)


X, W = torch.ones(2, 3), torch.ones(4, 3)


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "tensors", "arguments"),
    [
        (F.linear, (X, W), {"bias": None}, ["input", "weight"], {}),
        (torch.cumsum, (X, 1), {}, ["input"], {"dim": 1}),
        (torch.Tensor.cumsum, (X,), {"dim": -1}, ["input"], {"dim": -1}),
        (F.layer_norm, (X, (3,), None, None, 1e-3), {}, ["input"], {"normalized_shape": (3,), "eps": 1e-3}),
        (torch.layer_norm, (X, [3], X[0]), {}, ["input", "weight"], {"normalized_shape": (3,)}),
        (F.softmax, (X, -1), {"_stacklevel": 5}, ["input"], {"dim": -1}),
        (torch.softmax, (X, 1), {"dtype": torch.float32}, ["input"], {"dim": 1}),
        (F.hardtanh, (X, 0, 6, True), {}, ["input"], {"min_val": 0.0, "max_val": 6.0}),
        (torch.clamp, (X,), {"min": 0}, ["input"], {"min": 0.0}),
        (torch.norm, (X, "fro", -1), {}, ["input"], {"ord": 2.0, "dim": -1}),
        (torch.norm, (X,), {"p": 3, "dim": 1, "keepdim": True}, ["input"], {"ord": 3.0, "dim": 1, "keepdim": True}),
        (torch.linalg.matrix_norm, (X[None],), {"ord": "fro", "dim": (-2, -1)}, ["input"],
         {"ord": "fro", "dim": (-2, -1)}),
        (torch.add, (X, 2), {"alpha": 1}, ["input", "other"], {}),
        (torch.Tensor.__rsub__, (X, 1.0), {}, ["input", "other"], {}),
        (torch.pow, (X,), {"exponent": 2}, ["input", "other"], {}),
        (torch.mm, (X, W.T), {}, ["input", "other"], {}),
        (torch.bmm, (X[None], W.T[None]), {}, ["input", "other"], {}),
        (torch.cdist, (X[None], W[None]), {"p": 1, "compute_mode": "use_mm_for_euclid_dist"}, ["x1", "x2"], {"p": 1.0}),
        (F.batch_norm, (X, W[0], W[1], None, None, True, 0.1, 1e-3), {},
         ["input", "running_mean", "running_var"], {"eps": 1e-3}),
        (torch.batch_norm, (X, W[2], None, W[0], W[1], False, 0.1, 1e-3, True), {},
         ["input", "weight", "running_mean", "running_var"], {"eps": 1e-3}),
        (F.gelu, (X,), {"approximate": "tanh"}, ["input"], {"approximate": "tanh"}),
        (torch.sum, (X,), {"axis": (1,)}, ["input"], {"dim": (1,)}),
    ],
)  # fmt: skip
def test_a_call_is_read_however_it_is_written(function, args, kwargs, tensors, arguments):
    call = call_of(function, *args, **kwargs)
    assert (list(call.tensors), dict(call.arguments)) == (tensors, arguments)


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "message"),
    [
        (torch.cumprod, (X, 1), {}, "no float island holds it"),
        (torch.sort, (X, 1), {}, "no float island holds it"),
        (torch.cumsum, (X, 0), {}, "it works on the batch"),
        (torch.sum, (X,), {}, "name its dim, since it must not work on the batch"),
        (torch.sum, (X, (0, 1)), {}, "it works on the batch"),
        (torch.cumsum, (X, 1), {"dtype": torch.float64}, "it computes in torch.float64"),
        (torch.add, (X, W), {"alpha": 3}, "it has 'alpha'"),
        (torch.div, (X, 2), {"rounding_mode": "floor"}, "it has 'rounding_mode'"),
        (torch.clamp, (X,), {"min": X}, "it has 'min'"),
        (torch.norm, (X, float("inf"), 1), {}, "its ord is inf"),
        (torch.norm, (X, 0, 1), {}, "its ord is 0.0; take a positive one"),
        (F.grid_sample, (X, X), {"mode": "nearest"}, "its mode is 'nearest', which rounds places"),
        (torch.add, (X, torch.ones(3, dtype=torch.int64)), {}, "its other holds torch.int64"),
        (F.softplus, (X, 2.0), {}, "its beta and threshold are 2.0 and 20.0"),
        (torch.linalg.matrix_norm, (X[None], 2), {}, "its ord is 2, not str"),
        (torch.linalg.matrix_norm, (X,), {"dim": (0, 1)}, "it works on the batch"),
        (torch.linalg.norm, (X, "nuc"), {}, "no float island holds it"),
    ],
)
def test_what_no_island_holds_is_told(function, args, kwargs, message):
    with pytest.raises(NoIsland) as refusal:
        call_of(function, *args, **kwargs)
    assert message in str(refusal.value)


def test_a_weight_that_depends_on_the_inputs_is_no_island():
    reason = reason_against_island(operation_of(F.linear), F.linear, (X, W), {}, lambda tensor: tensor is W)
    assert reason == "its weight depends on the inputs"
    assert reason_against_island(operation_of(F.linear), F.linear, (X, W), {}, lambda tensor: tensor is X) is None


def test_a_node_of_an_exported_graph_says_what_the_call_says():
    call = call_of(torch.norm, X, 3, -1)
    assert torch.equal(mark(call), torch.linalg.vector_norm(X, 3, -1))
    assert unmarked("input,weight", '{"normalized_shape": [3], "eps": 0.5}') == (
        ["input", "weight"], {"normalized_shape": (3,), "eps": 0.5}
    )  # fmt: skip


def test_the_forward_computes_the_kernel_of_the_program():
    grid = Grid(0.5, 0, -128, 127)
    call = IslandCall(
        "hypot", {"input": torch.tensor([[3.0]]), "other": torch.tensor([[4.0]])}, {("args", 0): "input"}, {}
    )
    # 5 is exact on halves, and 4.9 of a forward in another precision would not be asked for
    assert computed(call, {("args", 0): grid}).quantize(torch.tensor([[4.9]]), grid).tolist() == [[5.0]]


class Net(nn.Module):
    """A layer, a function of two values, a norm and a layer."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(6, 6), nn.LayerNorm(6), nn.Linear(6, 4)

    def forward(self, x):
        y = self.first(x)
        return self.last(self.norm(torch.hypot(y, y.flip(1))))


def trained(network, quant, x, steps=3):
    torch.manual_seed(0)
    handle = prepare(network, x, quant)
    for _ in range(steps):
        network(x)
    network.eval()
    return handle


def test_an_island_stands_between_quantizers():
    handle = prepare(Net(), torch.randn(3, 5, 6), config("hypot"))
    assert handle.plan.islands == {"hypot": "hypot"} and handle.plan.float_layers == ()
    assert list(handle.quantizers) == [
        "input.x", "first.output", "hypot.output", "norm.output", "last.output", "first.weight", "last.weight"
    ]  # fmt: skip
    assert "float islands: hypot\n" in str(handle)


def test_a_layer_in_float_has_no_quantized_weight_and_is_called_by_its_operation():
    handle = prepare(Net(), torch.randn(3, 5, 6), config("first", "hypot"))
    assert "first.weight" not in handle.quantizers and "first.output" in handle.quantizers
    assert "float islands: first (linear), hypot\n" in str(handle)
    by_type = QuantConfig(rules=[Rule(type="LayerNorm", quantize=False), Rule("hypot", quantize=False)])
    assert prepare(Net(), torch.randn(3, 5, 6), by_type).plan.islands == {"hypot": "hypot", "norm": "layer_norm"}


def test_the_widths_of_its_neighbours_are_as_before():
    rules = [Rule("hypot", quantize=False), Rule("hypot", activation_bits=4)]
    handle = prepare(Net(), torch.randn(3, 5, 6), QuantConfig(rules=rules))
    assert handle.plan.sites["hypot.output"].spec.bits == 4


def test_everything_but_one_layer_in_float():
    x = torch.randn(3, 5, 6)
    quant = QuantConfig(rules=[Rule("*", quantize=False), Rule("last", quantize=True)])
    network = Net()
    handle = trained(network, quant, x)
    assert handle.plan.islands == {"first": "linear", "hypot": "hypot", "norm": "layer_norm"}
    assert torch.equal(network(x), convert(network)(x))


@pytest.mark.parametrize("names", [("hypot",), ("hypot", "norm"), ("hypot", "first", "norm"), ("hypot", "last")])
def test_the_eval_forward_is_the_program_code_for_code(names):
    x, network = torch.randn(3, 5, 6), Net()
    trained(network, config(*names), x)
    program = convert(network)
    many = torch.randn(400, 5, 6)
    assert torch.equal(network(many), program(many))
    assert {island.name for island in program.float_operations} == {*names}


def test_training_runs_the_function_itself_between_fake_quantizers():
    torch.manual_seed(0)
    network, x = Net(), torch.randn(3, 5, 6)
    prepare(network, x, config("hypot"))
    network(x).sum().backward()
    assert all(bool(parameter.grad.isfinite().all()) for parameter in network.parameters())
    assert float(network.first.weight.grad.abs().sum()) > 0


def test_no_gradient_is_none_where_quantized_operands_are_0():
    network = Net()
    with torch.no_grad():
        network.first.weight.mul_(1e-3)
        network.first.weight[0, 0], network.first.bias[:] = 100.0, 0.0  # so wide a grid that all else is 0
    prepare(network, torch.randn(3, 5, 6), config("hypot"))
    network(torch.randn(3, 5, 6)).sum().backward()
    assert all(bool(parameter.grad.isfinite().all()) for parameter in network.parameters())


def test_the_gradient_of_an_eval_forward_passes_an_island():
    network, x = Net(), torch.randn(3, 5, 6)
    trained(network, config("hypot"), x)
    network(x).sum().backward()
    assert float(network.first.weight.grad.abs().sum()) > 0


def test_a_removed_handle_gives_the_float_network_back():
    network, x = Net(), torch.randn(3, 5, 6)
    before = network(x)
    prepare(network, x, config("hypot")).remove()
    assert torch.equal(network(x), before)


def test_an_operation_of_a_loop_is_one_rule_for_every_step():
    class Steps(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.last = nn.Linear(6, 6), nn.Linear(6, 2)

        def forward(self, x):
            state = x[:, 0]
            for index in range(3):
                state = torch.hypot(self.layer(x[:, index]), state)
            return self.last(state)

    network, x = Steps(), torch.randn(4, 3, 6)
    trained(network, config("hypot"), x)
    program = convert(network)
    assert len(program.float_operations) == 3
    assert torch.equal(network(x), program(x))


def test_masked_scores_keep_their_mask_in_a_softmax_in_float():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)

        def forward(self, x):
            query, key, value = self.qkv(x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
            y = F.scaled_dot_product_attention(query, key, value, is_causal=True)
            return self.out(y.transpose(1, 2).flatten(2))

    network, x = Attention(), torch.randn(4, 5, 8)
    trained(network, config("softmax", "matmul"), x)
    program = convert(network)
    assert [island.function for island in program.float_operations] == ["matmul", "softmax", "matmul"]
    assert "mask" in program.float_operations[1].operands
    many = torch.randn(50, 5, 8)
    assert torch.equal(network(many), program(many))


def test_a_mask_stays_a_mask_whatever_rule_matches_it():
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(6, 6), nn.Linear(6, 2)

        def forward(self, x):
            scores = self.first(x).masked_fill(torch.eye(6, dtype=torch.bool)[:5], float("-inf"))
            return self.last(torch.softmax(scores, -1))

    network, x = Masked(), torch.randn(3, 5, 6)
    kept = [Rule(name, quantize=True) for name in ("first", "last")]
    handle = trained(network, QuantConfig(rules=[Rule("*", quantize=False), *kept]), x)
    assert handle.plan.islands == {"softmax": "softmax"}
    assert torch.equal(network(x), convert(network)(x))


def test_constants_and_numbers_beside_values_stay_real():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(6, 6), nn.Linear(6, 2)
            self.gain = nn.Parameter(torch.linspace(0.1, 0.7, 6))

        def forward(self, x):
            y = torch.logaddexp(self.first(x), self.gain)
            return self.last(y.mul_(0.3))

    network, x = Scaled(), torch.randn(3, 5, 6)
    handle = trained(network, config("logaddexp", "mul"), x)
    assert "gain" not in handle.quantizers
    program = convert(network)
    gain, number = (island.constants["other"] for island in program.float_operations)
    assert torch.equal(gain, network.gain) and number.tolist() == torch.tensor(0.3).tolist()
    assert torch.equal(network(x), program(x))


def test_a_batch_norm_and_its_convolution_in_float_train_their_statistics():
    network = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    x = torch.randn(8, 2, 6, 6) * 3 + 1
    trained(network, config("0", "1"), x)
    assert float(network[1].running_mean.abs().sum()) > 0
    program = convert(network)
    assert [island.function for island in program.float_operations] == ["conv2d", "batch_norm"]
    assert torch.equal(network(x), program(x))


class Remembering(nn.Module):
    """Adds what it computed for the batch before."""

    def __init__(self):
        super().__init__()
        self.first, self.before = nn.Linear(4, 4), None

    def forward(self, x):
        x = self.first(x)
        before, self.before = self.before, x.detach()
        return x if before is None else x + before


def test_no_rule_is_offered_for_a_constant_as_large_as_the_batch():
    module, x = Remembering(), torch.randn(3, 4)
    module(x)
    with pytest.raises(PreparationError, match="a constant as large as the batch") as refusal:
        prepare(module, x)
    assert "rules=" not in str(refusal.value)
    with pytest.raises(PreparationError, match="left in float by a rule, but its constant is as large as the batch"):
        prepare(module, x, config("add"))
