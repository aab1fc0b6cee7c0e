import hashlib
import json
import os

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from qat.errors import ProgramError
from qat.integer import storage
from qat.integer.builder import ProgramBuilder
from qat.integer.program import Grid, IndexRange, IntegerProgram, Weight, WeightGrid, float32

FILES = ("program.json", "program.safetensors")


def stored_program(seed=0, bits=4):
    generator = torch.Generator().manual_seed(seed)
    half = 2 ** (bits - 1)
    grid = Grid(float32(0.1), 20, 0, 255)

    def weight(*shape):
        codes = torch.randint(-half, half, shape, generator=generator).to(torch.int8)
        return Weight(codes, WeightGrid(bits), torch.rand(shape[0], generator=generator) + 0.01)

    builder = ProgramBuilder()
    x = builder.input("x", (2, 6), grid)
    y = builder.conv("conv", x, weight(3, 2, 3), grid, padding=((1, 1),), clamp=(20, 200), module="net.conv")
    k = builder.constant("k", torch.tensor([[1], [2], [3]]), Grid(0.5, 0, 0, 15))
    y = builder.mul("mul", builder.add("add", y, k, grid), k, grid)
    y = builder.concatenate("cat", (y, builder.requantize("r", y, grid, factor=0.7)), 1)
    y = builder.average_pool("pool", builder.max_pool("max", y, (2,), ceil_mode=True), (3,), grid)
    y = builder.linear("fc", builder.reshape("flat", y, (6,)), weight(4, 6), grid)
    step = ProgramBuilder()
    entry, before = step.input("entry", (2,), grid), step.input("before", (2,), grid)
    state = step.add("next", step.linear("recurrent", before, weight(2, 2), grid, module="net.loop"), entry, grid)
    state = step.mul("scaled", state, step.constant("factor", torch.tensor([3]), Grid(0.5, 0, 0, 15)), grid)
    step.output("state", state)
    step.output("output", state)
    body = step.build("tuple").with_integer_edges("*")
    first = builder.constant("first", torch.tensor([7, 30]), grid)
    y = builder.loop("loop", (builder.reshape("sequence", y, (2, 2)),), (first,), body, reverse=True)[0]
    builder.output("logits", builder.reshape("joined", y, (4,)))
    return builder.build("dict")


@pytest.fixture
def saved(tmp_path):
    stored_program().save(tmp_path)
    return tmp_path


def redigested(document):
    """A document changed on purpose, with a digest that fits."""
    return document | {"sha256": storage._digest(document)}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 1000), st.integers(2, 8))
def test_a_loaded_program_computes_the_same_and_saves_the_same_bytes(tmp_path, seed, bits):
    program = stored_program(seed, bits)
    program.save(tmp_path / "a")
    loaded = IntegerProgram.load(tmp_path / "a")
    loaded.save(tmp_path / "b")
    for name in FILES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    x = torch.randn(3, 2, 6, generator=torch.Generator().manual_seed(seed)) * 10
    assert torch.equal(loaded(x)["logits"], program(x)["logits"])
    assert loaded.layers == program.layers


def test_files_hold_no_path_and_leave_nothing_else(saved):
    assert sorted(os.listdir(saved)) == sorted(FILES)
    content = b"".join((saved / name).read_bytes() for name in FILES)
    assert str(saved).encode() not in content


def test_a_tensor_that_two_layers_share_is_stored(tmp_path):
    grid = Grid(0.5, 0, 0, 255)
    weight = Weight(torch.ones(2, 2, dtype=torch.int8), WeightGrid(8), torch.ones(2))
    builder = ProgramBuilder()
    x = builder.linear("first", builder.input("x", (2,), grid), weight, grid)
    builder.output("y", builder.linear("second", x, weight, grid))
    builder.build().save(tmp_path)
    assert len(IntegerProgram.load(tmp_path).layers) == 2
    names = load_tensors((tmp_path / FILES[1]).read_bytes())
    assert [name for name in names if name.endswith("weight.codes")] == ["first.weight.codes"]


def test_a_loop_is_stored_with_the_weights_of_its_step(saved):
    loaded, program = IntegerProgram.load(saved), stored_program()
    (loop,) = (operation for operation in loaded.operations if operation.name == "loop")
    assert loop.reverse and loop.last == ("loop/state",)
    assert [layer.name for layer in loop.body.layers] == ["recurrent", "next", "scaled"]
    weights = list(zip(loaded.weighted(), program.weighted(), strict=True))
    assert len(weights) == 3
    assert all(torch.equal(read.weight.codes, written.weight.codes) for read, written in weights)


def loop_of(document):
    return next(operation for operation in document["operations"] if operation["name"] == "loop")


def test_loops_inside_of_loops_are_refused_before_they_are_read(saved):
    document = json.loads((saved / FILES[0]).read_text())
    for _ in range(80):
        loop_of(document)["body"]["operations"] = [json.loads(json.dumps(loop_of(document)))]
    (saved / FILES[0]).write_text(json.dumps(redigested(document)))
    with pytest.raises(ProgramError, match="a loop is inside of the body of another loop"):
        IntegerProgram.load(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda body: body.pop("values"), "a program has exactly the sections"),
        (lambda body: body["operations"][0]["weight"].update(codes="missing"), "tensor 'missing' is missing"),
        (lambda body: body["operations"].clear(), "output 'state' comes from a value 'scaled' that nothing makes"),
        (lambda body: body["values"].append(body["values"][0]), "are named"),
        (lambda body: body.update(output_structure="dict"), "its outputs a tuple"),
    ],
)
def test_a_damaged_step_of_a_loop_is_refused(saved, change, message):
    document = json.loads((saved / FILES[0]).read_text())
    change(loop_of(document)["body"])
    (saved / FILES[0]).write_text(json.dumps(redigested(document)))
    with pytest.raises(ProgramError, match=message):
        IntegerProgram.load(saved)


@pytest.fixture
def saved_islands(tmp_path):
    """Two islands: a layer with real weights, and a function with arguments of several kinds."""
    grid = Grid(float32(0.1), 20, 0, 255)
    builder = ProgramBuilder()
    weights = {"weight": torch.tensor([[0.3, -1.7], [2.0, 0.1], [1.0, 1.0]]), "bias": torch.tensor([0.5, 0.0, -0.25])}
    y = builder.float_island("layer", "linear", {"input": builder.input("x", (2,), grid)} | weights, grid)
    arguments = {"ord": 3.0, "dim": (1,), "keepdim": True}
    builder.output("y", builder.float_island("norm", "linalg_vector_norm", {"input": y}, grid, arguments))
    builder.build().save(tmp_path)
    return tmp_path


def test_islands_are_stored_with_their_weights_and_arguments(saved_islands):
    loaded = IntegerProgram.load(saved_islands)
    layer, norm = loaded.float_operations
    assert layer.constants["weight"].tolist() == torch.tensor([[0.3, -1.7], [2.0, 0.1], [1.0, 1.0]]).tolist()
    assert layer.constants["bias"].tolist() == [0.5, 0.0, -0.25]
    assert norm.settings == {"ord": 3.0, "dim": (1,), "keepdim": True}
    # (0.6 - 1.7 + 0.5, 4 + 0.1, 2 + 1 - 0.25) on the grid: -0.6, 4.1, 2.8 (2.75 is half way to an even code)
    assert loaded(torch.tensor([[2.0, 1.0]])).tolist() == [[pytest.approx(4.5)]]  # (0.216 + 68.921 + 21.952) ** (1/3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda layer, norm: layer.update(function="os.system"), "a float island holds one of linear"),
        (lambda layer, norm: layer.update(function=["linear"]), "function is .*; expected str"),
        (lambda layer, norm: layer["weights"][0].update(values="missing"), "tensor 'missing' is missing"),
        (lambda layer, norm: layer["weights"][0].update(name="input"), "each is given once"),
        (lambda layer, norm: layer["weights"].pop(), "belongs to nothing in the program"),
        (lambda layer, norm: layer["weights"][0].pop("name"), "expected exactly name, values"),
        (lambda layer, norm: norm["arguments"].append({"name": "dtype", "text": "float64"}), "it has 'dtype'"),
        (lambda layer, norm: norm["arguments"].append({"name": "dim", "code": "1"}), "expected Whole or Real or"),
        (lambda layer, norm: norm["arguments"][0].update(sizes=[0, 1]), "it works on the batch"),
        (lambda layer, norm: norm["arguments"][0].update(sizes=[[1]]), "expected int"),
        (lambda layer, norm: norm["arguments"][1].update(flag=1), "expected bool"),
        (lambda layer, norm: norm["arguments"][2].update(real=-1.0), "its ord is -1.0"),
        (lambda layer, norm: norm["arguments"][2].update(real=1), "expected float"),
        (lambda layer, norm: norm.update(operands=["input", "input"]), "each is given once"),
        (lambda layer, norm: norm.update(operands=["x" * 5000]), "expected str"),
        (lambda layer, norm: norm.update(merged=2), "merges 2 dimensions"),
        (lambda layer, norm: norm.update(merged=1), "over the batch|merges|makes|cannot compute"),
        (lambda layer, norm: norm.update(clamp_max=256), "clamps to"),
    ],
)
def test_a_damaged_island_is_refused(saved_islands, change, message):
    document = json.loads((saved_islands / FILES[0]).read_text())
    change(*document["operations"])
    (saved_islands / FILES[0]).write_text(json.dumps(redigested(document)))
    with pytest.raises(ProgramError, match=message):
        IntegerProgram.load(saved_islands)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(FILES), st.integers(0, 10**9), st.integers(1, 255))
def test_a_flipped_byte_is_an_error_or_changes_nothing(saved, name, place, flip):
    original = (saved / name).read_bytes()
    damaged = bytearray(original)
    damaged[place % len(damaged)] ^= flip
    (saved / name).write_bytes(damaged)
    try:
        loaded = IntegerProgram.load(saved)
    except ProgramError:
        return
    finally:
        (saved / name).write_bytes(original)
    x = torch.ones(1, 2, 6)  # only blank space between json tokens can change unseen
    assert torch.equal(loaded(x)["logits"], stored_program()(x)["logits"])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(FILES), st.integers(0, 10**9))
def test_a_truncated_file_is_an_error(saved, name, length):
    original = (saved / name).read_bytes()
    (saved / name).write_bytes(original[: length % (len(original) - 1)])
    with pytest.raises(ProgramError):
        IntegerProgram.load(saved)
    (saved / name).write_bytes(original)


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
    max_leaves=5,
)


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_field_of_a_program_may_hold_anything_without_a_crash(saved, data):
    """A hostile file has a digest that fits; what it says must still be checked."""
    path = saved / "program.json"
    original = path.read_text()
    document = json.loads(original)
    container, key = document, data.draw(st.sampled_from(sorted(set(document) - {"sha256"})))
    while isinstance(container[key], dict | list) and len(container[key]) and data.draw(st.integers(0, 5)):
        container = container[key]
        key = data.draw(st.sampled_from(sorted(container) if isinstance(container, dict) else range(len(container))))
    container[key] = data.draw(st.one_of(json_values, st.integers(-(2**70), 2**70)))
    path.write_text(json.dumps(redigested(document)))
    try:
        IntegerProgram.load(saved)
    except ProgramError as error:
        assert len(str(error)) < 1000
    finally:
        path.write_text(original)


def test_cyclic_operations_are_refused(saved):
    document = json.loads((saved / "program.json").read_text())
    document["operations"][0]["inputs"] = ["fc"]
    (saved / "program.json").write_text(json.dumps(redigested(document)))
    with pytest.raises(ProgramError, match="nothing before it makes"):
        IntegerProgram.load(saved)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "not readable json"),
        ('{"version": NaN}', "NaN is not a number"),
        ('{"version": 1, "version": 1}', "written twice"),
        ('{"version": 2}', "version '2', this package reads 1"),
        ('{"version": ' + "9" * 5000 + "}", "not readable json"),
        ("[]", "holds a list"),
        ("", "not readable json"),
        ("\xff\xfe", "not readable json|holds"),
    ],
)
def test_strange_json_is_refused(saved, text, message):
    (saved / "program.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ProgramError, match=message):
        IntegerProgram.load(saved)


def with_tensors(saved, change):
    """Replace the tensors by changed ones, all digests fitting."""
    tensors = load_tensors((saved / "program.safetensors").read_bytes())
    change(tensors)
    content = save_tensors(tensors)
    (saved / "program.safetensors").write_bytes(content)
    document = json.loads((saved / "program.json").read_text())
    document["tensors_sha256"] = hashlib.sha256(content).hexdigest()
    (saved / "program.json").write_text(json.dumps(redigested(document)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("fc.bias"), "'fc.bias' is missing"),
        (lambda t: t.update(more=torch.zeros(1)), "'more' belongs to nothing"),
        (lambda t: t.update({"fc.bias": torch.zeros(4)}), "must be torch.int32"),
        (lambda t: t.update({"fc.bias": torch.zeros(5, dtype=torch.int32)}), r"both must be \(4,\)"),
        (lambda t: t.update({"fc.weight.scale": torch.full((4,), float("nan"))}), "positive normal"),
        (lambda t: t.update({"fc.weight.codes": torch.zeros(11, dtype=torch.uint8)}), "11 bytes cannot hold 24"),
        (lambda t: t.update({"fc.weight.codes": torch.zeros(12)}), "expected torch.uint8"),
        (lambda t: t.update({"constant.k.codes": torch.full((3, 1), 99, dtype=torch.uint8)}), "outside 0..15"),
        (lambda t: t["fc.multiplier.mantissa"].add_(1), "multipliers that are not"),
    ],
)
def test_strange_tensors_are_refused(saved, change, message):
    with_tensors(saved, change)
    with pytest.raises(ProgramError, match=message):
        IntegerProgram.load(saved)


def test_a_header_longer_than_the_file_is_refused(saved):
    content = (2**60).to_bytes(8, "little") + b"{}"
    (saved / "program.safetensors").write_bytes(content)
    document = json.loads((saved / "program.json").read_text())
    document["tensors_sha256"] = hashlib.sha256(content).hexdigest()
    (saved / "program.json").write_text(json.dumps(redigested(document)))
    with pytest.raises(ProgramError, match="its header is longer"):
        IntegerProgram.load(saved)


def test_sizes_are_bounded_before_anything_is_read(saved, monkeypatch):
    monkeypatch.setattr(storage, "MAX_JSON_BYTES", 10)
    with pytest.raises(ProgramError, match="more than the 10"):
        IntegerProgram.load(saved)


def test_a_json_of_countless_small_things_is_refused_before_it_is_parsed(saved):
    (saved / "program.json").write_bytes(b'{"version":1,"a":[' + b"[]," * 2**20 + b"0]}")
    with pytest.raises(ProgramError, match="more than the 1048576 items"):
        IntegerProgram.load(saved)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
def test_what_is_no_regular_file_is_refused_and_not_waited_for(saved, name, make):
    (saved / name).unlink()
    make(saved / name)
    with pytest.raises(ProgramError, match=f"{name} is no regular file"):
        IntegerProgram.load(saved)


def test_tensors_of_another_program_are_refused(saved, tmp_path):
    stored_program(seed=1).save(tmp_path / "other")
    (saved / "program.safetensors").write_bytes((tmp_path / "other" / "program.safetensors").read_bytes())
    with pytest.raises(ProgramError, match="not of this program.json"):
        IntegerProgram.load(saved)


def test_a_missing_directory_is_an_error(tmp_path):
    with pytest.raises(ProgramError, match="cannot be read"):
        IntegerProgram.load(tmp_path / "nothing")


def test_an_interrupted_save_leaves_the_old_program(saved, monkeypatch):
    before = [(saved / name).read_bytes() for name in FILES]

    def interrupted(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        stored_program(seed=3).save(saved)
    assert [(saved / name).read_bytes() for name in FILES] == before
    assert sorted(os.listdir(saved)) == sorted(FILES)


def test_every_new_kind_of_field_comes_back(tmp_path):
    grid = Grid(float32(0.1), 20, 0, 255)
    builder = ProgramBuilder()
    weight = Weight(torch.ones(5, 4, dtype=torch.int8), WeightGrid(3), torch.full((5,), 0.5))
    rows = builder.embedding("rows", builder.input("ids", (3,), IndexRange(5)), weight)
    y = builder.matmul("square", rows, builder.transpose("turn", rows, (0, 2, 1)), grid, factor=0.5)
    y = builder.table("tables", y, torch.arange(3 * 256).reshape(3, 256).byte(), grid, function="gelu")
    y = builder.take("take", y, 1, [2, 2, 0, 1])
    y = builder.negate("negate", builder.sum("sum", builder.expand("expand", y, (4, 3)), (1,), grid, keepdim=True))
    builder.output("y", y)
    for name in (builder.arg_max("first", y, 2), *builder.top_k("top", y, 2, 2, largest=False)):
        builder.output(f"out {name}", name)
    program = builder.build("dict")
    program.save(tmp_path)
    loaded = IntegerProgram.load(tmp_path)
    assert loaded.values == program.values
    table = loaded.operations[3]
    assert table.function == "gelu" and torch.equal(table.codes, program.operations[3].codes)
    ids = torch.randint(0, 5, (7, 3), generator=torch.Generator().manual_seed(0))
    for name, expected in program(ids).items():
        assert torch.equal(loaded(ids)[name], expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda document: document["values"][0].update(grid={"count": 0}), "counts 0"),
        (lambda document: document["values"][0].update(grid={"count": 6}), "has 5 rows, but 'ids' counts up to 6"),
        (lambda document: document["values"][0].update(grid={"count": 2**60}), "expected int"),
        (lambda document: document["operations"][0].update(kind="Take"), "a Take has"),
    ],
)
def test_hostile_indices_are_refused(tmp_path, change, message):
    builder = ProgramBuilder()
    weight = Weight(torch.ones(5, 4, dtype=torch.int8), WeightGrid(3), torch.full((5,), 0.5))
    builder.output("y", builder.embedding("rows", builder.input("ids", (3,), IndexRange(5)), weight))
    builder.build().save(tmp_path)
    path = tmp_path / FILES[0]
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(redigested(document)))
    with pytest.raises(ProgramError, match=message):
        IntegerProgram.load(tmp_path)
