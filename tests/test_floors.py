"""The lower bounds of pyproject.toml, the versions that `make test-floors` installs, and the pinned ones say the same."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parent.parent


def pins(name: str) -> dict[str, Version]:
    lines = (ROOT / name).read_text().splitlines()
    pinned = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {re.sub(r"[-_.]+", "-", package).lower(): Version(version) for package, version in pinned}


def requirements() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [Requirement(text) for text in project["dependencies"]]


def test_every_floor_is_the_version_that_was_tested() -> None:
    floors = pins("constraints-floors.txt")
    for requirement in requirements():
        (bound,) = requirement.specifier
        assert bound.operator == ">=", requirement
        tested = floors[requirement.name]
        assert requirement.specifier.contains(tested)
        assert tested.release[: len(Version(bound.version).release)] == Version(bound.version).release


def test_the_pinned_versions_are_allowed() -> None:
    pinned = pins("constraints.txt")
    for requirement in requirements():
        assert requirement.specifier.contains(pinned[requirement.name]), requirement
