"""constraints.txt, which `make` and CI install from, names what pyproject.toml asks for."""

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REQUIREMENTS = [
    Requirement(text)
    for texts in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
    for text in texts
]


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=lambda requirement: requirement.name)
def test_each_requirement_has_one_version_that_it_allows(requirement):
    """Where this fails: make constraints."""
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    versions = {pin.name: pin.specifier for pin in map(Requirement, lines)}
    (pin,) = versions[requirement.name]
    assert pin.operator == "=="
    assert requirement.specifier.contains(pin.version)


def test_make_installs_every_extra():
    makefile = (ROOT / "Makefile").read_text()
    (line,) = (line for line in makefile.splitlines() if line.startswith("EXTRAS := "))
    assert set(line.removeprefix("EXTRAS := ").split(",")) == set(PROJECT["optional-dependencies"])
