"""Files of torch.export."""

import logging
import subprocess
import sys
import zipfile

import pytest
import torch
from torch.fx import GraphModule

import qat
from qat.emitters import pytorch
from qat.emitters.pytorch import archive, graph, readback
from qat.errors import ExportError
from qat.integer.builder import ProgramBuilder
from qat.integer.lengths import Length
from qat.integer.values import Grid, Weight, WeightGrid, float32

BYTE = Grid(0.5, 0, 0, 255)


def network(bits=4, shape=(2, 5, 5)):
    """A convolution, a pool and a linear layer."""
    half = 2 ** (bits - 1)

    def weight(*sizes):
        codes = torch.arange(torch.Size(sizes).numel()).remainder(2 * half).sub(half).to(torch.int8).reshape(sizes)
        return Weight(codes, WeightGrid(bits), torch.full(sizes[:1], float32(0.01)))

    builder = ProgramBuilder()
    x = builder.input("image", shape, BYTE)
    y = builder.conv("features.conv", x, weight(4, shape[0], 3, 3), Grid(float32(0.2), 0, 0, 255))
    y = builder.mean("mean", y, (2, 3), Grid(float32(0.1), 0, 0, 255))
    builder.output("logits", builder.linear("head", y, weight(3, 4), Grid(float32(0.05), 128, 0, 255)))
    return builder.build("dict")


def joined(length=6):
    builder = ProgramBuilder()
    x = builder.input("x", (Length("length", length), 2), BYTE)
    builder.output("y", builder.add("sum", x, x, BYTE))
    builder.output("z", builder.max("max", x, (1,)))
    return builder.build("tuple")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "model.pt2"
    qat.export(network(), path, runtime="pytorch", labels=["a", "b", "c"])
    return path


def test_a_file_gives_what_the_program_gives(file):
    session = pytorch.open_session(file)
    pytorch.check_edges(session, network(), file)
    for batch in (1, 3, 7, 64):
        image = torch.rand(batch, 2, 5, 5, generator=torch.Generator().manual_seed(batch)) * 120
        outputs = pytorch.run_session(session, {"image": image})
        assert list(outputs) == ["logits"]
        assert torch.equal(outputs["logits"], network()(image)["logits"])


def test_a_file_runs_without_this_package(file):
    code = (
        "import sys, torch; graph = torch.export.load(sys.argv[1]).module(); "
        "print(graph(torch.ones(2, 2, 5, 5))['logits'].tolist(), 'qat' in sys.modules)"
    )
    printed = subprocess.run([sys.executable, "-c", code, file], capture_output=True, text=True, check=True).stdout
    assert printed == f"{network()(torch.ones(2, 2, 5, 5))['logits'].tolist()} False\n"


def test_equal_programs_give_equal_bytes(file, tmp_path):
    qat.export(network(), tmp_path / "again.pt2", runtime="pytorch", labels=["a", "b", "c"])
    assert (tmp_path / "again.pt2").read_bytes() == file.read_bytes()


def test_weights_lie_in_the_file_at_their_true_width_and_whole_words(file):
    with zipfile.ZipFile(file) as content:
        entries = {entry.filename: entry for entry in content.infolist()}
    weights = [entry for name, entry in entries.items() if "/weights/weight" in name]
    # 72 and 12 weights of 4 bits, 4 and 3 biases of 4 bytes
    assert sorted(entry.file_size for entry in weights) == [6, 12, 16, 36]
    assert all(entry.compress_type == zipfile.ZIP_STORED for entry in weights)
    content = file.read_bytes()
    for entry in weights:
        start = entry.header_offset + 26
        sizes = [int.from_bytes(content[at : at + 2], "little") for at in (start, start + 2)]
        assert (start + 4 + sum(sizes)) % archive.ALIGNMENT == 0


def test_no_node_computes_with_real_numbers_but_the_first_and_the_last(file):
    assert pytorch.float_ops(file) == []
    found = pytorch.operations(file)
    real = [entry.kind for entry in found if entry.dtype == "float32"]
    names = "to.dtype lift_fresh_copy.default detach_.default div.Tensor round.default clamp_.default"
    names += " lift_fresh_copy.default detach_.default to.dtype mul.Tensor"
    assert real == [f"aten.{name}" for name in names.split()]
    assert {entry.dtype for entry in found} <= {"float32", "uint8", "int8", "int32", "int64", "bool"}
    assert "aten._int_mm.default" in {entry.kind for entry in found if entry.name == "features.conv"}
    weights = {name: sum(entry.bytes for entry in found if entry.name == name) for name in ("features.conv", "head")}
    assert weights["features.conv"] >= 36 + 16 and weights["head"] >= 6 + 12


def test_a_file_takes_raw_pictures(tmp_path):
    program = network().with_image_input(mean=(0.4, 0.5), std=0.25, channels_last=True)
    path = tmp_path / "model.pt2"
    qat.export(program, path, runtime="pytorch")
    pictures = torch.randint(0, 256, (3, 5, 5, 2), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    outputs = pytorch.run_session(pytorch.open_session(path), {"image": pictures})
    assert torch.equal(outputs["logits"], program(pictures)["logits"])
    assert pytorch.float_ops(path) == []


class Real(torch.nn.Module):
    def forward(self, x):
        return (x / 2).to(torch.int32).to(torch.float32).mul(3.0).round().to(torch.int32).to(torch.float32) * 0.5


def test_real_arithmetic_in_the_middle_is_found():
    traced = torch.export.export(Real(), (torch.ones(3),))
    assert [text.split(": ")[1] for text in readback.float_nodes(traced)] == [
        "aten.to.dtype", "aten.mul.Tensor", "aten.round.default", "aten.to.dtype",
    ]  # fmt: skip


def test_a_file_says_what_it_is(file):
    described = pytorch.metadata(file)
    assert described["labels"] == ["a", "b", "c"]
    assert described["inputs"] == {"image": {"dtype": "float32", "scale": 0.5, "zero_point": 0}}
    assert described["weight_bits"] == {"features.conv": 4, "head": 4}
    assert "torch" in pytorch.session_conditions()


def test_a_file_takes_every_length(tmp_path):
    path = tmp_path / "model.pt2"
    program = joined()
    qat.export(program, path, runtime="pytorch")
    session = pytorch.open_session(path)
    pytorch.check_edges(session, program, path)
    for length in (1, 4, 6):
        x = torch.arange(2.0 * length).reshape(1, length, 2)
        outputs = pytorch.run_session(session, {"x": x})
        assert torch.equal(outputs["y"], 2 * x) and torch.equal(outputs["z"], x.amax(1))


def test_what_torch_cannot_follow_takes_the_recorded_length_and_is_told(tmp_path, caplog):
    codes = torch.arange(27).remainder(16).sub(8).to(torch.int8).reshape(3, 3, 3)
    weight = Weight(codes, WeightGrid(4), torch.full((3,), float32(0.01)))
    builder = ProgramBuilder()
    x = builder.input("x", (3, Length("length", 9)), BYTE)
    builder.output("y", builder.conv("conv", x, weight, BYTE, stride=(2,), padding=((1, 1),)))
    program = builder.build()
    path = tmp_path / "model.pt2"
    with caplog.at_level(logging.WARNING, "qat"):
        qat.export(program, path, runtime="pytorch")
    assert "takes the recorded length only, since torch.export cannot follow" in caplog.text
    session = pytorch.open_session(path)
    pytorch.check_edges(session, program, path)
    x = torch.rand(2, 3, 9) * 128
    assert torch.equal(pytorch.run_session(session, {"x": x})["y"], program(x))


def test_the_file_of_another_program_is_refused(file):
    with pytest.raises(ExportError, match=r"makes logits float32 \(3\) of image float32 \(2, 5, 5\), and the program"):
        pytorch.check_edges(pytorch.open_session(file), network(shape=(3, 5, 5)), file)


@pytest.mark.parametrize("content", [None, b"", b"no zip"])
def test_what_is_no_file_is_refused(content, tmp_path):
    path = tmp_path / "model.pt2"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ExportError, match="does not exist" if content is None else "is no .pt2 file of a program"):
        pytorch.open_session(path)


def test_a_graph_that_somebody_else_saved_is_refused(tmp_path):
    path = tmp_path / "model.pt2"
    torch.export.save(torch.export.export(Real(), (torch.ones(3),)), path)
    with pytest.raises(ExportError, match="is no .pt2 file of a program"):
        pytorch.open_session(path)


def test_a_processor_whose_int8_product_saturates_is_refused(file, monkeypatch):
    monkeypatch.setattr("qat.emitters.pytorch.session.int8_matmul_is_exact", lambda: False)
    with pytest.raises(ExportError, match="whose sums saturate on this processor"):
        pytorch.open_session(file)


def test_a_file_of_other_codes_gets_no_name(tmp_path, monkeypatch):
    def wrong(program):
        made, traced = graph.exported(program)
        assert isinstance(traced.graph_module, GraphModule)
        name = next(name for name in traced.state_dict if name.endswith("bias"))
        traced.state_dict[name] += 1000
        return made, traced

    monkeypatch.setattr(pytorch, "exported", wrong)
    with pytest.raises(ExportError, match="gives other codes than the program for"):
        qat.export(network(), tmp_path / "model.pt2", runtime="pytorch")
    assert list(tmp_path.iterdir()) == []


def test_what_a_rule_left_in_float_is_refused(tmp_path):
    layers = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Softmax(1), torch.nn.Linear(4, 2)).eval()
    rules = (qat.Rule("1", quantize=False),)
    quant = qat.QuantConfig(rules=rules)
    program = qat.quantize(layers, [torch.randn(8, 4)], quant=quant)
    (refused,) = pytorch.refusals(program)
    assert (refused.kind, refused.detail) == ("FloatIsland", "softmax") and "drop the rule" in refused.remedy
    with pytest.raises(ExportError, match="drop the rule"):
        qat.export(program, tmp_path / "model.pt2", runtime="pytorch")
    with pytest.raises(qat.errors.ProgramError, match="computes softmax in real numbers"):
        program.to_module()
