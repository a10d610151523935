"""`dpo train` as a user runs it: a process, its streams, its exit code and the folder that it leaves."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from dpo_cli.cli.train.train import train
from dpo_cli.metrics.sinks.jsonl import read_metrics
from dpo_cli.preflight.dry_run import plan_lines
from dpo_cli.recipe.load import load
from tests.patience import starts
from tests.train.tiny_recipe import STEPS, write_recipe

ROOT = Path(__file__).resolve().parents[3]

OWN_LINES = (
    r"attention: |method: |reference on |warning: |spot check: |self-test: |reference log-probs: |step=|eval step=|health: |"
    r"prompt  |before  |after   |$|done in |result  |beside  |margin  |speed   |model   |files   |next    |note    |note: "
)


def dpo(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a folder, with a cache of its own and no network."""
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "XDG_CACHE_HOME": str(folder / "cache"),
        "HF_HOME": str(folder / "hf"),
    }
    command = [sys.executable, "-m", "dpo_cli", "train", *arguments]
    return subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, timeout=starts(100), check=False
    )


def tree(folder: Path) -> dict[str, bytes]:
    """Give every file below a folder, and every empty folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in folder.rglob("*")
    }


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("workplace")
    write_recipe(folder)
    return folder


@pytest.fixture(scope="module")
def dry(workplace: Path) -> tuple[subprocess.CompletedProcess[str], dict[str, bytes], dict[str, bytes]]:
    """A dry run with weights that cannot be read, before anything else ran: its result, the tree before and after."""
    weights = workplace / "tiny" / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(b"no weights")
    before = tree(workplace)
    result = dpo(workplace, "tiny.yaml", "--dry-run", "--json")
    after = tree(workplace)
    weights.write_bytes(content)
    return result, before, after


@pytest.fixture(scope="module")
def done(workplace: Path, dry: object) -> subprocess.CompletedProcess[str]:
    """A finished run, shared by the tests."""
    return dpo(workplace, "tiny.yaml", "--json")


@pytest.fixture
def run_dir(workplace: Path, done: subprocess.CompletedProcess[str]) -> Path:
    return workplace / str(json.loads(done.stdout)["run_dir"])


def test_fault_069_a_dry_run_loads_no_weights_and_writes_nothing(
    dry: tuple[subprocess.CompletedProcess[str], dict[str, bytes], dict[str, bytes]],
) -> None:
    result, before, after = dry

    assert (result.returncode, result.stderr) == (0, "")
    assert after == before
    facts = json.loads(result.stdout)
    assert (facts["steps"], facts["batch_size"]) == (STEPS, 8)
    assert facts["data"]["train"] + facts["data"]["eval"] == 40
    assert facts["note"] == "nothing was started and nothing was written"
    told = plan_lines(facts)
    assert all("{" not in line and "[]" not in line for line in told)
    assert next(line for line in told if line.startswith("steps")).split()[1:4] == [str(STEPS), "of", "8"]
    assert sum(line.startswith((" ", "changed")) for line in told) == len(facts["changed"])


def test_a_run_ends_with_one_json_object_on_stdout(
    done: subprocess.CompletedProcess[str], workplace: Path
) -> None:
    assert done.returncode == 0, done.stderr
    status = json.loads(done.stdout)

    assert done.stdout.count("\n") == 1
    assert (status["state"], status["code"], status["resumable"]) == ("finished", 0, False)
    assert status["step"] == status["steps"] == STEPS
    assert status["message"] == f"complete at step {STEPS}"
    assert status["train_seconds"] > 0 and status["pairs_per_second"] > 0 and status["peak_memory_gib"] > 0
    assert status["eval"].keys() >= {"accuracy", "ci", "n", "margin", "loss", "longer_wins"}
    low, high = status["eval"]["ci"]
    assert 0 <= low <= status["eval"]["accuracy"] <= high <= 1
    assert status == json.loads((workplace / status["run_dir"] / "status.json").read_text())


def test_stderr_holds_nothing_but_our_own_lines(done: subprocess.CompletedProcess[str]) -> None:
    strange = [line for line in done.stderr.splitlines() if not re.match(OWN_LINES, line)]

    assert strange == []
    assert "\x1b" not in done.stderr


def test_metrics_hold_step_time_and_the_names_that_tools_expect(run_dir: Path) -> None:
    rows = read_metrics(run_dir / "metrics.jsonl")

    assert [row["step"] for row in rows] == [2, 4, 6, 8]
    names = {"step", "time", "train/loss", "train/grad_norm", "train/learning_rate", "train/rewards/chosen"}
    names |= {
        "train/rewards/rejected",
        "train/rewards/accuracies",
        "train/rewards/margins",
        "train/logps/chosen",
    }
    assert all(names <= row.keys() for row in rows)
    assert rows[-1]["train/loss"] < rows[0]["train/loss"]


def test_eval_every_0_still_gives_the_final_evaluation(run_dir: Path) -> None:
    rows = read_metrics(run_dir / "metrics.jsonl")

    evaluated = [row for row in rows if "eval/loss" in row]
    assert [row["step"] for row in evaluated] == [STEPS]
    assert evaluated[0].keys() >= {"eval/rewards/accuracies", "eval/rewards/margins", "eval/longer_wins"}
    assert evaluated[0]["eval/loss"] == json.loads((run_dir / "status.json").read_text())["eval"]["loss"]


def test_the_saved_model_loads_and_answers_as_any_other(run_dir: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(run_dir / "model")
    tokenizer = AutoTokenizer.from_pretrained(run_dir / "model")
    chat = [{"role": "user", "content": "Tell me about tea."}]
    ids = tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )

    with torch.no_grad():
        out = model.generate(**ids, max_new_tokens=4, do_sample=False)

    assert out.shape[1] > ids["input_ids"].shape[1]


def test_the_recipe_in_the_run_folder_runs_it_again(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the first run had: sums in another order would end in other bits
    train(str(run_dir / "recipe.yaml"), ["train.output_dir=again"], False, True)
    torch.set_num_threads(threads)
    again = json.loads(capsys.readouterr().out)
    first = json.loads((run_dir / "status.json").read_text())

    assert again["digest"] == first["digest"] == load(str(run_dir / "recipe.yaml")).digest
    assert again["eval"] == first["eval"]
    weights = [folder / "model" / "model.safetensors" for folder in (run_dir, tmp_path / again["run_dir"])]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_fault_004_resuming_a_finished_run_does_nothing(
    run_dir: Path,
    workplace: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    before = tree(run_dir)

    train(str(workplace / "tiny.yaml"), [f"train.resume={run_dir}"], False, True)

    out, err = capsys.readouterr()
    assert err == f"complete at step {STEPS}: {run_dir}\n"
    status = json.loads(out)
    assert (status["state"], status["code"], status["run_dir"]) == ("finished", 0, str(run_dir))
    assert tree(run_dir) == before and list(tmp_path.iterdir()) == []


def test_without_held_out_rows_eval_is_null(
    workplace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = ["data.split.eval=0", "train.max_steps=1", f"train.output_dir={tmp_path}"]
    train(str(workplace / "tiny.yaml"), overrides, False, True)

    status = json.loads(capsys.readouterr().out)
    assert (status["state"], status["eval"], status["margins"]) == ("finished", None, {})
    (row,) = read_metrics(Path(status["run_dir"]) / "metrics.jsonl")
    assert not [name for name in row if name.startswith("eval/")]


def test_without_json_stdout_stays_empty(
    workplace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = [
        "data.split.eval=0",
        "train.max_steps=1",
        f"train.output_dir={tmp_path}",
        "train.save_every=0",
    ]
    train(str(workplace / "tiny.yaml"), overrides, False, False)

    out, err = capsys.readouterr()
    assert out == "" and "done in " in err
    assert err.count("method: dpo, loss sigmoid; rewards include beta: 0.1") == 1


def test_a_recipe_error_is_one_line_and_exit_code_2(workplace: Path) -> None:
    before = tree(workplace)

    result = dpo(workplace, "tiny.yaml", "method.betta=0.2")

    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("dpo: error[2] ") and "did you mean 'method.beta'" in result.stderr
    assert result.stderr.count("\n") == 1
    assert tree(workplace) == before


def test_a_start_that_fails_is_one_line_and_its_status_says_so(workplace: Path, tmp_path: Path) -> None:
    result = dpo(workplace, "tiny.yaml", "model.name=./none", f"train.output_dir={tmp_path}", "--json")
    (path,) = tmp_path.iterdir()
    status = json.loads((path / "status.json").read_text())

    assert (result.returncode, result.stdout) == (status["code"], "") == (4, "")
    assert result.stderr.startswith("dpo: error[4] ") and result.stderr.count("\n") == 1
    assert status["state"] == "failed" and status["message"] in result.stderr


def test_wandb_offline_gets_the_run_and_the_panel_names_the_upload(workplace: Path, tmp_path: Path) -> None:
    overrides = ["log.trackers=[wandb]", "log.wandb.mode=offline", f"train.output_dir={tmp_path}", "--json"]
    result = dpo(workplace, "tiny.yaml", *overrides)
    assert result.returncode == 0, result.stderr
    run_dir = Path(json.loads(result.stdout)["run_dir"])

    (recorded,) = run_dir.glob("wandb/offline-run-*/*.wandb")
    assert b"train/rewards/margins" in recorded.read_bytes()
    assert "wandb sync" in result.stderr
