"""What the README tells a reader to type exists: commands, settings, names, files."""

import ast
import importlib
import re
import shlex
import tomllib
from pathlib import Path

import pytest

import qat
from qat.cli import parts
from qat.cli.check import compose_recipe

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands(text: str = README) -> list[str]:
    """Every command in `text`: the lines of shell blocks, and what stands between backticks and has arguments."""
    lines = [
        line.partition("  #")[0].strip()
        for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
        for line in block.splitlines()
    ]
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    quoted = re.findall(r"`((?:qat-|make |pip |python )[^`]*)`", prose)
    return list(dict.fromkeys(line for line in [*lines, *(" ".join(text.split()) for text in quoted)] if line))


def commands_of(*programs: str) -> list[str]:
    return [command for command in commands() if command.split()[0] in programs]


def test_the_two_commands_come_first_and_then_the_one_line():
    assert commands()[:2] == ["make train", "make test"]
    assert "callbacks=[qat.QATCallback(" in blocks("python")[0]


@pytest.mark.parametrize(
    "command",
    # recipes in a folder of the reader's own are for the reader to write
    [command for command in commands_of("qat-train", "qat-check") if "--config-dir" not in command],
)
def test_every_recipe_and_setting_exists(command):
    words = shlex.split(command)[1:]
    name = words[words.index("-cn") + 1] if "-cn" in words else "digits_cnn"
    first_point = [re.sub(r"=([^,\[{]*),.*", r"=\1", word) for word in words if "=" in word]
    config = compose_recipe(name, first_point)
    parts.check_complete(config)
    quant, schedule = parts.quant_of(config), parts.schedule_of(config)
    if schedule is not None:
        schedule.check_reaches(quant.weight.bits, quant.activation.bits)


def test_every_program_is_installed():
    programs = {command.split()[0] for command in commands() if command.startswith("qat-")}
    assert programs == set(PROJECT["scripts"])


@pytest.mark.parametrize("command", commands_of("make"))
def test_every_target_of_make_exists(command):
    targets = [word for word in command.split()[1:] if "=" not in word]
    for target in targets:
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), target


@pytest.mark.parametrize("command", commands_of("python"))
def test_every_script_exists(command):
    assert (ROOT / command.split()[1]).is_file()


def test_every_extra_exists():
    (sentence,) = re.findall(r"extras:(.*?)\.", README, re.DOTALL)
    assert set(re.findall(r"`(\w+)`", sentence)) <= set(PROJECT["optional-dependencies"])


@pytest.mark.parametrize("block", blocks("python"))
def test_every_python_block_compiles_and_its_names_exist(block):
    tree = ast.parse(block)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "qat":
            assert hasattr(qat, node.attr), f"qat.{node.attr}"


def test_the_values_in_the_python_blocks_are_accepted():
    """Schedules, specs and rules are checked where they are written, so writing them is the test."""
    for block in blocks("python"):
        for node in ast.parse(block).body:
            built = isinstance(node, ast.Assign) and ast.unparse(node.value).startswith(
                ("qat.Schedule", "qat.QuantConfig")
            )
            if built:
                eval(ast.unparse(node.value), {"qat": importlib.import_module("qat")})


@pytest.mark.parametrize(
    "link",
    re.findall(r"\]\(([^)#]+)\)", README) + re.findall(r"`((?:notebooks|recipes|configs|docs)/[\w./]*)`", README),
)
def test_every_link_and_folder_exists(link):
    assert link.startswith("https://") or (ROOT / link).exists()


def test_every_row_of_results_names_the_command_that_reproduces_it():
    table = re.search(r"^\| recipe \|.*?(?=^$)", README, re.MULTILINE | re.DOTALL)[0].splitlines()
    header, _, *rows = ([cell.strip() for cell in row.strip("|").split("|")] for row in table)
    assert header[-1] == "command" and rows
    numbered = dict(re.findall(r"^(\d+)\. (.*?)(?=^\d+\. |^$)", README, re.MULTILINE | re.DOTALL))
    for row in rows:
        assert re.fullmatch(r"\d+(, \d+)*", row[-1]), row
        recipe = re.search(r"`(\w+)`", row[0])[1]
        named = " ".join(numbered[number] for number in row[-1].split(", "))
        assert f"-cn {recipe}" in named or (recipe == "digits_cnn" and "`qat-train`" in named), row
