"""What is installed: configs and recipes inside the package, commands that exist."""

import importlib
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
