"""Every worker collects the same tests, whenever it starts: ids and parameters depend on neither clock, hash seed nor address."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from tests.patience import starts

ROOT = Path(__file__).parent.parent


def collecting(out: Path, hash_seed: str, *options: str, tests: str = "tests") -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pytest", tests, "--collect-only", "-q", "-p", "no:cacheprovider"]
    return subprocess.Popen(
        [*command, "-p", "tests.collected", "--collected", str(out), *options],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def differences(folder: Path, tests: str = "tests") -> list[tuple[str, str]]:
    """Return the lines in which two collections differ, a second and an hour apart, with other hash seeds."""
    now, later = folder / "now", folder / "later"
    first = collecting(now, "1", tests=tests)
    time.sleep(1)
    second = collecting(later, "2", "--later", tests=tests)
    for process in (first, second):
        said, _ = process.communicate(timeout=starts(200))
        assert process.returncode == 0, said
    lines = [path.read_text(encoding="utf-8").splitlines() for path in (now, later)]
    assert len(lines[0]) == len(lines[1])
    return [pair for pair in zip(*lines, strict=True) if pair[0] != pair[1]]


def test_two_collections_are_one(tmp_path: Path) -> None:
    assert differences(tmp_path) == []


def test_a_parameter_that_holds_the_time_or_a_sets_order_is_found(tmp_path: Path) -> None:
    (tmp_path / "test_bad.py").write_text(
        "import gzip, pytest\n"
        "@pytest.mark.parametrize('content', [b'a', gzip.compress(b'a')])\n"
        "def test_time(content): pass\n"
        "@pytest.mark.parametrize('name', {'one', 'two', 'three', 'four', 'five', 'six', 'seven'})\n"
        "def test_order(name): pass\n"
    )
    found = differences(tmp_path, str(tmp_path))
    assert {line.partition("::")[2].partition("[")[0] for pair in found for line in pair} == {
        "test_time",
        "test_order",
    }
