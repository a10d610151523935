"""A machine without the packages that only some recipes use: it trains, and says what to install where one is asked for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dpo_cli.packages import package_problems, version_of
from tests.patience import starts
from tests.train.tiny_recipe import write_recipe

ROOT = Path(__file__).resolve().parents[2]
OPTIONAL = ("wandb", "datasets", "peft", "bitsandbytes", "matplotlib", "gguf", "vaderSentiment", "vllm")


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a tiny recipe, whose processes find none of the optional packages."""
    folder = tmp_path_factory.mktemp("bare")
    (folder / "sitecustomize.py").write_text(
        f"import sys\nfor name in {OPTIONAL}:\n    sys.modules[name] = None\n"  # import and find_spec both fail
    )
    write_recipe(folder)
    return folder


def dpo(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {
        **os.environ,
        "PYTHONPATH": f"{folder}:{ROOT}",
        "OMP_NUM_THREADS": "1",
        "XDG_CACHE_HOME": str(folder / "cache"),
    }
    command = [sys.executable, "-m", "dpo_cli", *arguments]
    return subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, timeout=starts(100), check=False
    )


def test_a_recipe_that_names_none_of_them_trains(bare: Path) -> None:
    done = dpo(bare, "train", "tiny.yaml", "--json")
    assert done.returncode == 0, done.stderr
    assert (bare / json.loads(done.stdout)["run_dir"] / "model" / "README.md").is_file()


@pytest.mark.parametrize(
    ("overrides", "code", "line"),
    [
        (
            ["log.trackers=[wandb]"],
            2,
            "log.trackers: 'log.trackers' needs the package wandb",
        ),
        (["model.adapter={rank: 4}"], 2, "model.adapter: 'model.adapter' needs the package peft"),
        (
            ["data.train=[{path: org/pairs}]"],
            3,
            "org/pairs' is a data set of the hub, which needs the package datasets",
        ),
    ],
)
def test_a_recipe_that_names_one_is_refused_with_the_command_that_installs_it(
    bare: Path, overrides: list[str], code: int, line: str
) -> None:
    done = dpo(bare, "train", "tiny.yaml", *overrides)
    assert done.returncode == code, done.stderr
    (told,) = [each for each in done.stderr.splitlines() if each.startswith("dpo: error")]
    assert line in told
    assert f"Fix: pip install {line.rpartition(' ')[2]}" in told


def test_env_names_what_is_not_there(bare: Path) -> None:
    facts = json.loads(dpo(bare, "env", "--json").stdout)
    assert facts["torch"] == version_of("torch")


def test_a_distribution_that_is_not_installed_has_no_version() -> None:
    assert version_of("no-such-distribution") == "not installed"
    assert package_problems("json", "x", "y") == []
    (problem,) = package_problems("no_such_package", "log.x", "'log.x'", "log.x: null")
    assert problem.fix == "pip install no_such_package, or log.x: null"
