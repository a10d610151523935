"""One warm process and one tiny recipe for all faults, and how it ends when nothing happens to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.runs import Dpo, Outcome, only_run, outcome, write_faulty_recipe


@pytest.fixture(scope="session")
def dpo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dpo]:
    """Give what runs `dpo` in a process of its own."""
    warm = Dpo(tmp_path_factory.mktemp("said"))
    yield warm
    warm.close()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the recipe; its folder also holds the caches."""
    return write_faulty_recipe(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def oracle_dir(tiny: Path, dpo: Dpo) -> Path:
    """Give the run folder of an uninterrupted run."""
    done = dpo("train", str(tiny), "train.output_dir=oracle", cwd=tiny.parent)
    assert done.rc == 0, done.err
    return only_run(tiny.parent / "oracle")


@pytest.fixture(scope="session")
def oracle(oracle_dir: Path) -> Outcome:
    """Give what every faulted run must end with."""
    return outcome(oracle_dir)
