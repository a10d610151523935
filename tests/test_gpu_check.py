"""`scripts/gpu_check.py` where there is no GPU: what runs, what a part that fails costs the others, and what is written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scripts.gpu.page import joined, page_of
from tests.patience import starts

ROOT = Path(__file__).parent.parent

FAKES = {
    "good": "def run(here):\n    here.figure('speed', 2.5)\n    here.check('error', 1e-6, 1e-4)\n",
    "raises": "def run(here):\n    here.figure('before', 1)\n    raise ValueError('made to fail')\n",
    "wrong": "def run(here):\n    here.check('error', float('nan'), 1e-4)\n",
    "crashes": "import os\n\ndef run(here):\n    print('last words', flush=True)\n    os.kill(os.getpid(), 11)\n",
    "hangs": "import time\n\ndef run(here):\n    here.figure('so far', 3)\n    time.sleep(9999)\n",
    "missing": "def run(here):\n    here.need('no_such_package')\n",
    "absent": "import no_such_package\n",
    "last": "def run(here):\n    here.figure('device', str(here.device))\n",
}
DRIVER = """
import sys
from scripts import gpu_check
gpu_check.LEAST_S = 0.0
parts = [gpu_check.Part(name, f"fake_{name}", 0.02 if name == "hangs" else 0.2) for name in sys.argv.pop(1).split(",")]
sys.exit(gpu_check.main(parts))
"""


def check(*arguments: str, path: str = "") -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": f"{path}:{ROOT}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *arguments, "--device", "cpu", "--tiny"]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=starts(200), check=False)


def results(out: Path) -> dict[str, dict[str, Any]]:
    report = json.loads((out / "gpu_check.json").read_text())
    return {part["name"]: part for part in report["parts"]}


def test_a_part_that_fails_hangs_or_crashes_stops_no_other(tmp_path: Path) -> None:
    for name, text in FAKES.items():
        (tmp_path / f"fake_{name}.py").write_text(text)
    done = check("-c", DRIVER, ",".join(FAKES), "--out", str(tmp_path), "--minutes", "1", path=str(tmp_path))

    assert done.returncode == 1, done.stderr
    found = results(tmp_path)
    assert {name: part["status"] for name, part in found.items()} == {
        "good": "ok",
        "raises": "FAILED",
        "wrong": "FAILED",
        "crashes": "FAILED",
        "hangs": "timed out",
        "missing": "needs no_such_package",
        "absent": "FAILED",
        "last": "ok",
    }
    assert found["good"]["figures"] == {"speed": 2.5, "error": 1e-6}
    assert found["raises"]["figures"] == {"before": 1}
    assert "ValueError: made to fail" in found["raises"]["error"]
    assert found["wrong"]["failed_checks"] == ["error: nan, at most 0.0001"]
    assert "last words" in found["crashes"]["error"] and "-11" in found["crashes"]["error"]
    assert found["hangs"]["figures"] == {"so far": 3}
    assert "No module named 'no_such_package'" in found["absent"]["error"]
    assert found["last"]["figures"] == {"device": "cpu"}
    assert "made to fail" in done.stdout


@pytest.mark.slow
def test_every_part_runs_on_a_cpu_or_says_that_it_needs_a_gpu(tmp_path: Path) -> None:
    done = check("scripts/gpu_check.py", "--out", str(tmp_path))

    assert done.returncode == 0, done.stdout + done.stderr
    found = results(tmp_path)
    assert set(found) == {path.stem for path in (ROOT / "scripts" / "gpu").glob("*.py")} - {
        "__init__", "context", "shapes", "runs", "page", "profiles"
    }  # fmt: skip
    assert {part["status"] for part in found.values()} <= {"ok", "needs CUDA", "needs trl"}
    assert (
        found["training"]["figures"]["resumed against whole, largest difference of a weight"] == "bit-equal"
    )


def report(**device: Any) -> dict[str, Any]:
    part = {"name": "step", "status": "FAILED", "seconds": 3.2, "figures": {"ms a step": 12.34}}
    more = {"failed_checks": ["a|b: 1, at most 0"], "error": "Traceback\nValueError: no"}
    return {
        "date": "2026-01-02",
        "device": device,
        "versions": {"torch": "2.11"},
        "parts": [{**part, **more}],
    }


def test_the_page_says_not_run_until_it_was() -> None:
    assert "**Not run yet.**" in page_of(None)
    assert "**Not run yet.**" in page_of(report(kind="cpu"))
    card = {"kind": "cuda", "name": "NVIDIA H100", "memory_gib": 79.2, "capability": "9.0", "cuda": "13.0"}
    page = page_of(report(**card))
    assert "Not run" not in page
    assert "NVIDIA H100 (79.2 GiB, capability 9.0, CUDA 13.0), 2026-01-02; torch 2.11." in page
    assert "| One step seen from the host | FAILED | 3 |" in page
    assert "| ms a step | 12.3 |" in page
    assert "ValueError: no" in page


def test_the_shipped_page_is_what_the_script_writes() -> None:
    found = json.loads((ROOT / "docs" / "gpu_check.json").read_text())
    assert (ROOT / "docs" / "gpu.md").read_text() == page_of(found)


def test_results_of_several_runs_are_one_page_of_one_machine() -> None:
    card = {"kind": "cuda", "name": "NVIDIA H100", "memory_gib": 79.2, "capability": "9.0", "cuda": "13.0"}
    old, new = report(**card), report(**card)
    new["parts"][0]["figures"] = {"ms a step": 9.9}

    assert "| ms a step | 9.9 |" in page_of(joined([old, new]))
    with pytest.raises(ValueError, match="different machines"):
        joined([old, report(**{**card, "name": "NVIDIA A100"})])
