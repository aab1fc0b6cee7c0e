"""Imports run one way: each package imports only from the floors below it."""

import ast
import subprocess
import sys
from pathlib import Path

import qat

ROOT = Path(qat.__file__).parent

#: From the ground up; packages on one line may import each other's floor below, not each other's users.
FLOORS = [
    {"errors"},
    {"files"},
    {"spec", "schedule"},
    {"functional", "folding", "range_search", "tracing"},
    {"tokens"},
    {"observers", "kernels"},
    {"quantizers", "targets"},
    {"integer"},
    {"real"},
    {"inject"},
    {"lowering"},
    {"emitters", "batches", "preparation", "verification"},
    {"certificate"},
    {"report"},
    {"training", "post_training"},
    {"callback"},
    {"data", "models"},
    {"cli"},
]
FLOOR_OF = {name: level for level, names in enumerate(FLOORS) for name in names}


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "qat":
            names = node.module.split(".")[1:2] or [alias.name for alias in node.names]
            yield from names
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("qat."))


def test_every_module_stands_on_a_floor_and_imports_only_from_below():
    wrong = []
    for path in sorted(ROOT.rglob("*.py")):
        part = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if part in ("__init__", "configs", "recipes"):
            continue
        assert part in FLOOR_OF, f"{path} stands on no floor"
        for name in imported(path):
            if name in FLOOR_OF and FLOOR_OF[name] > FLOOR_OF[part]:
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong


def test_import_qat_is_light():
    heavy = ["torch", "onnx", "onnxruntime", "matplotlib", "datasets", "sklearn", "pytorch_lightning", "hydra"]
    code = f"import sys, qat; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
