import sys

import pytest
import torch
from small_programs import small_program

from qat.emitters import RUNTIMES, emitter_of, export, remove_exported
from qat.errors import ConfigurationError, MissingExtraError
from qat.integer.values import Grid

GRID = Grid(1.0, 0, 0, 255)


def test_an_unknown_runtime_is_refused_with_those_there_are(tmp_path):
    with pytest.raises(ConfigurationError, match="runtime is 'onyx'; choose one of onnxruntime"):
        export(None, tmp_path / "model.onnx", runtime="onyx")
    with pytest.raises(ConfigurationError, match=r"runtime is \['c'\]; choose one of onnxruntime"):
        export(None, tmp_path / "model.onnx", runtime=["c"])


@pytest.mark.parametrize(
    ("runtime", "package", "extra"),
    [
        ("onnxruntime", "onnx", "onnxruntime"),
        ("onnxruntime", "onnxruntime", "onnxruntime"),
        ("litert", "ai_edge_litert", "litert"),
        ("litert", "flatbuffers", "litert"),
        ("tensorrt", "onnx", "onnxruntime"),
        ("web", "onnxruntime", "onnxruntime"),
    ],
)
def test_a_missing_package_names_the_extra(monkeypatch, runtime, package, extra):
    for name in [name for name in sys.modules if name.startswith(("qat.emitters.", package))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    with pytest.raises(MissingExtraError, match=rf"needs the package '{package}'.*lightning-qat\[{extra}\]"):
        emitter_of(runtime)


def test_a_network_instead_of_a_program_is_told_the_way(tmp_path):
    with pytest.raises(ConfigurationError, match=r"takes an IntegerProgram, not a Linear; call qat.convert\(module\)"):
        export(torch.nn.Linear(2, 2), tmp_path / "model.onnx")


def test_choices_that_would_change_nothing_are_refused(tmp_path):
    program = small_program(lambda builder, x: builder.negate("negate", x), [(2,)], [GRID])
    with pytest.raises(ConfigurationError, match="channels_last is True, but pytorch takes .* for litert or c"):
        export(program, tmp_path / "model.pt2", runtime="pytorch", channels_last=True)
    with pytest.raises(ConfigurationError, match="unpacked_weights is True, but files for c are .* export for litert"):
        export(program, tmp_path / "model.c", runtime="c", unpacked_weights=True)
    for runtime in ("litert", "c", "pytorch", "web"):
        with pytest.raises(ConfigurationError, match=f"nonlinear is 'float_island', but files for {runtime} compute"):
            export(program, tmp_path / "model.c", runtime=runtime, nonlinear="float_island")
    with pytest.raises(ConfigurationError, match=r"there are 3 labels, but the last .* \(y0 2\); give one"):
        export(program, tmp_path / "model.c", runtime="c", labels=["a", "b", "c"])
    assert list(tmp_path.iterdir()) == []


#: What every emitter has, and what `Runtime` says that some have besides.
INTERFACE = [
    "check_edges", "emit", "files_of", "float_ops", "open_session", "operations", "refusals", "run_session",
    "session_conditions", "stored_bytes",
]  # fmt: skip
ABILITIES = {
    "float_network": ["emit_float"],
    "islands": ["islands_in", "IslandComparison"],
    "both_forms": ["islands_of"],
    "real_programs": ["emit_real", "NodeComparison"],
}


@pytest.mark.parametrize("runtime", RUNTIMES.values(), ids=list(RUNTIMES))
def test_an_emitter_has_what_all_have_and_what_its_runtime_says(runtime):
    emitter = emitter_of(runtime.name)
    assert [name for name in INTERFACE if not hasattr(emitter, name)] == []
    for ability, names in ABILITIES.items():
        assert [hasattr(emitter, name) for name in names] == [getattr(runtime, ability)] * len(names), ability


def test_taking_exported_files_away_leaves_what_is_not_theirs(tmp_path):
    for name in ("model.onnx", "model.onnx.data", "model.c", "model.h", "model.yaml", "model.ckpt"):
        (tmp_path / name).touch()
    (tmp_path / "web" / "ort").mkdir(parents=True)
    remove_exported(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.ckpt", "model.yaml"]
