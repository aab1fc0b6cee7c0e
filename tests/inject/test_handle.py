import copy
import pickle
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from qat.errors import AddressError, CheckpointError, PreparationError
from qat.inject.handle import forward_of, handle_of
from qat.inject.prepare import prepare
from qat.lowering.convert import convert
from qat.schedule import QuantState
from qat.spec import QuantConfig, Rule


class Plain(nn.Module):
    def __init__(self, width=6):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm = nn.Linear(4, width), nn.BatchNorm1d(width)
        self.second, self.last = nn.Linear(width, width), nn.Linear(width, 2)

    def forward(self, x):
        x = F.relu(self.norm(self.first(x)))
        return self.last(F.relu(self.second(x)) + x)


def batch(size=8):
    return torch.randn(size, 4, generator=torch.Generator().manual_seed(5))


def step(network, handle, steps=1):
    optimizer = torch.optim.SGD([*network.parameters(), *handle.parameters()], 0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        network(batch()).square().mean().backward()
        optimizer.step()


def test_remove_leaves_the_very_same_module():
    network = Plain()
    step(network, prepare(Plain(), batch()))
    attributes, keys = dict(network.__dict__), list(network.state_dict())
    network.eval()
    before = network(batch())
    network.train()
    handle = prepare(network, batch(), "w4a4")
    assert list(network.state_dict()) == keys and type(network) is Plain
    assert not any(parameter is own for parameter in handle.parameters() for own in network.parameters())
    handle.remove()
    handle.remove()  # a second time does nothing
    assert dict(network.__dict__) == attributes
    network.eval()
    assert torch.equal(network(batch()), before)
    prepare(network, batch())  # and it may be prepared again


def test_a_forward_of_the_instance_is_given_back():
    network = Plain()
    own = network.forward = lambda x: Plain.forward(network, x) * 2.0
    handle = prepare(network, batch())
    network(batch())
    assert "mul.output" in handle.quantizers
    handle.remove()
    assert network.forward is own


def test_the_own_forward_is_found_on_prepared_and_other_modules():
    network = Plain()
    forward = forward_of(network)
    prepare(network, batch())
    assert forward_of(network) == forward
    assert network.forward != forward


@pytest.mark.parametrize("module", [nn.Linear, lambda x: x, None])
def test_what_is_no_module_is_refused(module):
    with pytest.raises(PreparationError, match=r"the module is .*; pass an instance of torch\.nn\.Module"):
        prepare(module, batch())


def test_lazy_scripted_and_quantized_modules_are_refused():
    with pytest.raises(PreparationError, match="0.weight has no shape yet; run the network on one batch"):
        prepare(nn.Sequential(nn.LazyLinear(3)), batch())
    with pytest.warns(DeprecationWarning, match="torch.jit"):
        scripted = torch.jit.script(nn.Linear(4, 2))
    with pytest.raises(PreparationError, match="the module is a TorchScript module"):
        prepare(scripted, batch())
    with pytest.raises(PreparationError, match="the sub-module '0' is a TorchScript module"):
        prepare(nn.Sequential(scripted, nn.Linear(2, 2)), batch())
    fake = torch.ao.quantization.FakeQuantize()
    with pytest.raises(PreparationError, match="'1' is a FakeQuantize, quantized by other means"):
        prepare(nn.Sequential(nn.Linear(4, 2), fake), batch())


def test_a_handle_prints_every_quantizer():
    network = Plain()
    handle = prepare(network, batch(), "w4a8")
    handle.set_state(QuantState(weight_bits=6))
    table = str(handle)
    assert "Plain as w4a8 for onnxruntime" in table
    rows = [line for line in table.splitlines() if "│" in line]
    second = next(row for row in rows if "second.weight" in row)
    assert "6 -> 4" in second and "learned" in second and "weight" in second
    assert "test_handle.py:" in table
    assert all(name in table for name in handle.quantizers)


def test_the_width_in_force_is_the_larger_of_schedule_and_config():
    handle = prepare(Plain(), batch(), QuantConfig.parse("w4a6"))
    for bits, expected in ((8, (8, 8)), (6, (6, 6)), (5, (5, 6)), (2, (4, 6)), (None, (4, 6))):
        handle.set_state(QuantState(weight_bits=bits, activation_bits=bits))
        assert (handle.quantizers["second.weight"].bits, handle.quantizers["second.output"].bits) == expected
        assert handle.quantizers["first.weight"].bits == 8


STATES = [
    QuantState(observe=False, fake_quantize=False),
    QuantState(observe=True, fake_quantize=False),
    QuantState(weight_bits=8, activation_bits=8),
    QuantState(weight_bits=6, activation_bits=6),
    QuantState(observe=False),
    QuantState(observe=False, freeze_batch_norm=True, freeze_scales=True, final=True),
]


@pytest.mark.parametrize("state", STATES, ids=lambda state: f"{state.phase}-{state.weight_bits}")
@pytest.mark.parametrize("quant", ["w8a8", "w4a4"])
def test_a_restored_handle_continues_bit_for_bit_in_every_phase(state, quant):
    network = Plain()
    handle = prepare(network, batch(), quant)
    step(network, handle)
    handle.set_state(state)
    step(network, handle)
    twin = Plain()
    restored = prepare(twin, batch(2), quant)
    twin.load_state_dict(network.state_dict())
    restored.load_state_dict(copy.deepcopy(handle.state_dict()))
    restored.set_state(state)
    for each, steers in ((network, handle), (twin, restored)):
        step(each, steers, steps=2)
    own, other = handle.state_dict(), restored.state_dict()
    assert all(torch.equal(own[name][key], other[name][key]) for name in own for key in own[name])
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), twin.parameters(), strict=True))


def test_a_state_of_another_width_or_shape_is_refused_and_nothing_is_taken():
    handle = prepare(Plain(), batch(), "w4a4")
    step(handle.module, handle)
    wide = prepare(Plain(width=7), batch(), "w4a4")
    before = copy.deepcopy(wide.state_dict())
    with pytest.raises(CheckpointError, match=r"first\.weight\.\w+, this network needs shape \(7,\)"):
        wide.load_state_dict(handle.state_dict())
    after = wide.state_dict()
    assert all(torch.equal(before[name][key], after[name][key]) for name in before for key in before[name])
    with pytest.raises(CheckpointError, match="unknown"):
        prepare(nn.Sequential(nn.Linear(4, 2)), batch(), "w4a4").load_state_dict(handle.state_dict())
    with pytest.raises(CheckpointError, match="4 bits, below the 8 bits configured|holds nothing for"):
        prepare(Plain(), batch(), "w8a8").load_state_dict(handle.state_dict())


def test_a_copy_is_independent():
    network = Plain()
    handle = prepare(network, batch(), "w4a4")
    step(network, handle)
    twin = copy.deepcopy(network)
    before = copy.deepcopy(handle.state_dict())
    step(twin, handle_of(twin), steps=2)
    after = handle.state_dict()
    assert all(torch.equal(before[name][key], after[name][key]) for name in before for key in before[name])
    handle_of(twin).remove()
    assert handle_of(network) is handle and handle_of(twin) is None


def test_a_pickled_network_trains_and_converts_in_another_process(tmp_path):
    code = """
import pickle, sys, torch
network, x, expected = pickle.load(open(sys.argv[1], "rb"))
assert torch.equal(network(x), expected)
import qat
from qat.inject.handle import handle_of
assert torch.equal(qat.convert(network)(x), expected)
network.train()
network(x).sum().backward()
assert all(parameter.grad is not None for parameter in handle_of(network).parameters())
"""
    network = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2))
    step(network, prepare(network, batch(), "w4a4"))
    network.eval()
    with torch.no_grad():
        expected = network(batch())
    (tmp_path / "network.pickle").write_bytes(pickle.dumps((network, batch(), expected)))
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "network.pickle")], check=True)


def test_averaged_weights_convert():
    network = Plain()
    handle = prepare(network, batch(), "w4a4")
    averaged = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9)
    )
    for _ in range(3):
        step(network, handle)
        averaged.update_parameters(network)
    twin = averaged.module
    twin_handle = handle_of(twin)
    twin_handle.load_state_dict(handle.state_dict())
    twin.eval()
    with torch.no_grad():
        assert torch.equal(twin(batch()), convert(twin)(batch()))


def test_converting_leaves_buffers_that_a_forward_writes():
    class Counting(Plain):
        def __init__(self):
            super().__init__()
            self.register_buffer("count", torch.zeros(()))

        def forward(self, x):
            self.count += 1
            return super().forward(x)

    network = Counting()
    prepare(network, batch())
    network(batch())
    network.eval()
    convert(network)
    assert int(network.count) == 1


def test_integer_and_real_rules_of_an_encoder_layer_work_in_eval_mode_too():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
    config = QuantConfig(rules=[Rule("*", quantize=False), Rule(type="Linear", quantize=True)])
    x = torch.randn(3, 5, 8)
    handle = prepare(layer, x, config, target=None)
    layer(x)
    weights = [name for name, site in handle.plan.sites.items() if site.role == "weight"]
    assert weights == ["linear1.weight", "linear2.weight"]
    layer.eval()
    assert layer(x).shape == (3, 5, 8)
    assert handle.runs == 2


def test_a_change_of_state_follows_the_module_to_its_device():
    network = Plain()
    handle = prepare(network, batch())
    network.to("meta")
    handle.set_state(handle.state)
    assert {quantizer.scale.device.type for quantizer in handle.quantizers.values()} == {"meta"}


def test_a_part_that_was_prepared_after_the_whole_is_refused_where_both_quantize():
    part = nn.Linear(4, 4)
    whole = nn.Sequential(part, nn.ReLU())
    prepare(whole, torch.ones(2, 4))
    handle = prepare(part, torch.ones(2, 4))
    with pytest.raises(AddressError, match=r"Linear was prepared inside of Sequential, .*remove\(\) on one of the two"):
        whole(torch.ones(2, 4))
    assert part(torch.ones(2, 4)).shape == (2, 4)
    handle.remove()
    assert whole(torch.ones(2, 4)).shape == (2, 4)
