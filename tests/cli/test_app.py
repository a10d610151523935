import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from statistics import median

import pytest

from dpo_cli import __version__
from tests.patience import cpu_s

ROOT = Path(__file__).resolve().parents[2]


def dpo(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dpo_cli", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "TERM": "dumb", **environment},
    )


def test_help_names_every_command() -> None:
    done = dpo("--help")
    assert done.returncode == 0
    for command in ("init", "train", "check", "peek", "recipes", "explain", "env"):
        assert command in done.stdout


def test_help_and_a_bad_recipe_start_fast() -> None:
    """In CPU time against a bare interpreter's, taken in turn: 8 and 27 times it (17 with the oldest typer); torch alone would add 90."""
    commands = [
        ("-c", "pass"),
        ("-m", "dpo_cli", "--help"),
        ("-m", "dpo_cli", "train", "quickstart", "optim.lrr=1"),
    ]
    rounds = [[cpu_s(*command) for command in commands] for _ in range(3)]
    bare, shown, refused = map(median, zip(*rounds, strict=True))
    assert shown < 30 * bare
    assert refused < 60 * bare


def test_version() -> None:
    assert dpo("--version").stdout == f"dpo-cli {__version__}\n"


def test_a_users_mistake_is_a_line_on_stderr_and_a_code() -> None:
    done = dpo("recipes", "show", "nope")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("dpo: error[2] RECIPE: no recipe 'nope'. Fix: a path, or one of ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments", [("--debug", "recipes", "show", "nope"), ("recipes", "show", "nope", "--debug")]
)
def test_debug_shows_the_traceback(arguments: tuple[str, ...]) -> None:
    assert "Traceback" in dpo(*arguments).stderr


def test_debug_can_stand_in_the_environment() -> None:
    assert "Traceback" in dpo("recipes", "show", "nope", DPO_DEBUG="1").stderr
    assert "Traceback" not in dpo("recipes", "show", "nope", DPO_DEBUG="0").stderr


def test_wrong_usage_is_code_2() -> None:
    assert dpo("nope").returncode == 2
    assert dpo("train").returncode == 2


def test_a_reader_that_leaves_costs_no_traceback() -> None:
    done = subprocess.run(
        ["bash", "-c", f"'{sys.executable}' -m dpo_cli recipes schema | head -1"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert (done.stdout, done.stderr) == ("{\n", "")


def test_control_characters_of_a_recipe_do_not_reach_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text('"\\e[31mred": 1\nname: "[red]\\e]0;title\\a"\n')
    done = dpo("recipes", "show", str(path))
    assert done.returncode == 2
    assert "\x1b" not in done.stderr
    assert "\x07" not in done.stderr


def test_env_reports_versions_and_devices() -> None:
    facts = json.loads(dpo("env", "--json").stdout)
    assert facts["dpo-cli"] == __version__
    assert facts["cores"] >= 1
    assert facts["precision"] in ("fp32", "bf16")
    assert facts["devices"]


def test_ctrl_c_is_code_130() -> None:
    code = (
        "import os, signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a background job starts with it ignored
        "from dpo_cli.cli import app as module\n"
        "module.recipes.app.command('wait')(lambda: os.kill(os.getpid(), signal.SIGINT))\n"
        "import sys; sys.argv = ['dpo', 'recipes', 'wait']; module.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode in (130, -signal.SIGINT)
    assert "Traceback" not in done.stderr


def test_our_own_mistakes_crash_with_a_traceback() -> None:
    code = (
        "from dpo_cli.cli import app as module\n"
        "def fail(): raise ValueError('ours')\n"
        "module.recipes.app.command('fail')(fail)\n"
        "import sys; sys.argv = ['dpo', 'recipes', 'fail']; module.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1
    assert "ValueError: ours" in done.stderr
