"""Lists the packages, since two of them do not lie where their names say; everything else is in pyproject.toml."""

from setuptools import find_packages, setup

setup(packages=[*find_packages(include=["qat", "qat.*"]), "qat.configs", "qat.recipes"])
