"""What is installed: configs and recipes inside the package, commands that exist."""

import importlib
import os
import shutil
import subprocess
import tomllib
from importlib import resources
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.mark.parametrize("package, folder", [("qat.configs", "configs"), ("qat.recipes", "recipes")])
def test_every_yaml_is_found_in_the_package(package, folder):
    for path in (ROOT / folder).rglob("*.yaml"):
        assert resources.files(package).joinpath(*path.relative_to(ROOT / folder).parts).is_file()


@pytest.mark.parametrize("command, target", sorted(PROJECT["scripts"].items()))
def test_every_command_exists(command, target):
    module, function = target.split(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_the_version_is_that_of_the_package():
    assert importlib.import_module("qat").__version__ == PROJECT["version"]


def test_every_folder_with_code_is_a_package():
    for path in (ROOT / "qat").rglob("*.py"):
        assert (path.parent / "__init__.py").is_file(), path


def planned(folder, *arguments):
    """What make would do in `folder`, on one line. The tests may run under a make of their own, which tells its own."""
    make = ["make", "--dry-run", *arguments]
    outside = ("MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS", "TORCH", "TORCH_INDEX", "ARGS", "PYTHON")
    environment = {name: value for name, value in os.environ.items() if name not in outside}
    done = subprocess.run(make, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return " ".join(done.stdout.split())


@pytest.fixture
def checkout(tmp_path):
    for name in ("Makefile", "pyproject.toml", "setup.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def test_the_environment_takes_the_cpu_build_of_torch_or_the_one_asked_for(checkout):
    index = "--index-url https://download.pytorch.org/whl/"
    assert f'{index}cpu "torch==2.13.0"' in planned(checkout, "train")
    assert f'{index}cu130 "torch==2.13.0+cu130"' in planned(checkout, "train", "TORCH=torch==2.13.0+cu130")
    assert '--index-url URL "torch==2.13.0"' in planned(checkout, "test", "TORCH_INDEX=URL")


def test_an_environment_is_kept_with_its_build_of_torch_until_another_is_asked_for(checkout):
    (checkout / ".venv").mkdir()
    (checkout / ".venv" / "installed-torch--2.13.0+cu130").write_text("torch==2.13.0+cu130\n")
    tests = "OMP_NUM_THREADS=1 .venv/bin/python -m pytest --numprocesses auto --dist worksteal"
    assert planned(checkout, "test") == tests
    assert "install" in planned(checkout, "test", "TORCH=torch==2.13.0")
