"""A method of the user's own: it runs where the user said so, and a recipe alone runs no code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.patience import starts
from tests.train.tiny_recipe import write_recipe

PLUGIN = '''
from dataclasses import dataclass
from dpo_cli.methods._base import Method, pairs, reward_metrics
from dpo_cli.types import LogProbs, LossOutput, Term

open("imported", "w").close()


@dataclass
class SlicConfig:
    """Knobs."""

    name: str = "my_methods.slic"
    """Selects the method."""
    delta: float = 1.0
    """Margin asked for, nats. Larger asks for more."""


def slic_loss(policy, reference, config):
    chosen, rejected = pairs(policy.mean)
    return LossOutput((Term((config.delta - chosen + rejected).relu()),), reward_metrics(chosen, rejected, policy))


METHOD = Method(SlicConfig, "pairs", False, slic_loss, "SLiC, arXiv:2210.15497")
'''


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder with a tiny recipe that names a method of a package beside it."""
    path = write_recipe(tmp_path)
    path.write_text(path.read_text() + "method: {name: my_methods.slic, delta: 2}\n")
    (tmp_path / "my_methods").mkdir()
    (tmp_path / "my_methods" / "__init__.py").write_text("")
    (tmp_path / "my_methods" / "slic.py").write_text(PLUGIN)
    return tmp_path


def dpo(here: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    code = "from dpo_cli.cli.app import main; main()"
    settings = os.environ | {"OMP_NUM_THREADS": "1"} | environment
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=here,
        env=settings,
        capture_output=True,
        text=True,
        timeout=starts(150),
    )


def test_a_recipe_alone_runs_no_code(here: Path) -> None:
    done = dpo(here, "train", "tiny.yaml", "optim.lrr=1")

    assert done.returncode == 2
    assert "tiny.yaml:6: method 'my_methods.slic' is code outside this package" in done.stderr
    assert "--plugin my_methods" in done.stderr
    assert "optim.lrr" in done.stderr, "all problems at once"
    assert not (here / "imported").exists()


def test_a_plugin_trains_and_leaves_its_digest(here: Path) -> None:
    done = dpo(here, "train", "tiny.yaml", "--plugin", "my_methods", "--json")
    assert done.returncode == 0, done.stderr
    run_dir = here / json.loads(done.stdout)["run_dir"]
    kept = json.loads((run_dir / "plugin.json").read_text())

    assert kept["module"] == "my_methods.slic"
    assert len(kept["sha256"]) == 64
    assert "held-out reward accuracy" in done.stderr
    (here / "my_methods" / "slic.py").write_text(PLUGIN.replace("relu()", "relu() * 2"))
    again = dpo(here, "--plugin", "my_methods", "train", "tiny.yaml", "--dry-run", "--json")
    assert json.loads(again.stdout)["run_dir"] != str(run_dir), "other code is another run"


def test_the_users_configuration_allows_it_too(here: Path) -> None:
    (here / "config" / "dpo-cli").mkdir(parents=True)
    (here / "config" / "dpo-cli" / "config.yaml").write_text("plugins: [my_methods]\n")
    done = dpo(here, "check", "tiny.yaml", XDG_CONFIG_HOME=str(here / "config"))

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--plugin"], "names no package"),
        (["--plugin", "my_methods", "method.name=my_methods.none"], "cannot be imported"),
        (["--plugin", "my_methods", "method.name=my_methods.empty"], "declares no METHOD"),
    ],
)
def test_what_is_wrong_with_a_plugin_is_one_line(here: Path, arguments: list[str], told: str) -> None:
    (here / "my_methods" / "empty.py").write_text("")
    done = dpo(here, "check", "tiny.yaml", *arguments)

    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr
