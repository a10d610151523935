"""The end of a run: what ships is what was measured, whole or not at all."""

from __future__ import annotations

import json
import resource
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dpo_cli.engine.runtime import Runtime
from dpo_cli.errors import StorageError
from dpo_cli.evaluate.pairs.results import is_older, read_results
from dpo_cli.evaluate.pairs.run_eval import measure
from dpo_cli.recipe.load import load
from dpo_cli.runs.status import Status, read_status
from dpo_cli.runs.target import subject_of
from dpo_cli.train.finish.before_after import sample_lines
from dpo_cli.train.run import train
from tests.train.tiny_recipe import STEPS, write_recipe


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recipe(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def finished(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output folder with one finished run, not to be changed."""
    output = tmp_path_factory.mktemp("finished") / "runs"
    run(inputs, output)
    return output


@pytest.fixture
def output(finished: Path, tmp_path: Path) -> Path:
    """A copy of it, to change."""
    return Path(shutil.copytree(finished, tmp_path / "runs"))


def run(inputs: Path, output: Path, *overrides: str) -> Status:
    return train(load(str(inputs), [f"train.output_dir={output}", *overrides]), "dpo train tiny.yaml")


def only(output: Path) -> Path:
    (path,) = output.iterdir()
    return path


def left_unfinished(output: Path) -> Path:
    """Make the finished run one that died while it was saving its model."""
    path = only(output)
    status = read_status(path)
    assert status is not None
    status.state, status.run_dir = "finishing", str(path)
    status.write()
    (path / "model").rename(path / ".tmp-model")
    return path


def test_a_run_folder_is_complete(finished: Path) -> None:
    path = only(finished)
    wanted = {
        "recipe.yaml",
        "metrics.jsonl",
        "checkpoints",
        "model",
        "status.json",
        "samples.json",
        "choices.json",
        "data.json",
        "report.html",
    }

    assert wanted <= {entry.name for entry in path.iterdir()}
    assert not [entry for entry in path.rglob(".*")], "nothing temporary is left"
    model = {entry.name for entry in (path / "model").iterdir()}
    assert model >= {
        "model.safetensors",
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "README.md",
    }
    assert "chat_template.jinja" in model


def test_the_margin_is_measured_as_trained_as_saved_and_as_served(finished: Path) -> None:
    status = read_status(only(finished))

    assert status is not None and status.eval is not None
    assert status.margins["trained"] == status.margins["saved"] == status.eval["margin"] > 0.05
    assert 0 < abs(status.margins["bf16"] - status.margins["trained"]) < 0.1 * status.margins["trained"]


def test_the_saved_weights_are_the_last_checkpoints_in_fp32(finished: Path) -> None:
    path = only(finished)
    saved = load_file(path / "model" / "model.safetensors")
    kept = load_file(path / "checkpoints" / f"step-{STEPS:08d}" / "model.safetensors")

    assert saved.keys() == kept.keys()
    assert all(torch.equal(saved[name], kept[name]) and saved[name].dtype == torch.float32 for name in kept)


def test_servers_find_every_end_token_and_the_cache(finished: Path) -> None:
    model = only(finished) / "model"
    generation = json.loads((model / "generation_config.json").read_text())

    assert generation["eos_token_id"] == [4] and generation["pad_token_id"] == 0
    assert json.loads((model / "config.json").read_text())["use_cache"] is True


def test_end_tokens_of_the_model_and_of_the_recipe_are_both_kept(inputs: Path, tmp_path: Path) -> None:
    run(inputs, tmp_path, "model.eos_token=</s>", "train.max_steps=1", "data.split.eval=0")

    generation = json.loads((only(tmp_path) / "model" / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [2, 4]


def test_a_run_that_died_while_it_finished_does_not_train_again(
    inputs: Path, output: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = left_unfinished(output)
    (path / ".old-model").mkdir()
    (path / ".old-model" / "config.json").write_text("{}")

    status = run(inputs, output)

    told = capsys.readouterr().err
    assert f"continuing the unfinished run {path}" in told
    assert f"resuming after step {STEPS} of {STEPS}" in told
    assert "loss=" in told and "\nstep=" not in told, "an evaluation, no training"
    assert (status.state, status.step, status.attempt) == ("finished", STEPS, 1)
    first, second = (folder / "model" / "model.safetensors" for folder in (only(finished), path))
    assert first.read_bytes() == second.read_bytes()
    assert not (path / ".old-model").exists() and not (path / ".tmp-model").exists()


def test_a_resumed_run_ends_with_the_same_weights(inputs: Path, output: Path, finished: Path) -> None:
    path = left_unfinished(output)
    shutil.rmtree(path / "checkpoints" / f"step-{STEPS:08d}")

    assert run(inputs, output).state == "finished"

    first, second = (folder / "model" / "model.safetensors" for folder in (only(finished), path))
    assert first.read_bytes() == second.read_bytes()


def test_fault_011_no_whole_checkpoint_is_told_and_not_started_over(inputs: Path, output: Path) -> None:
    path = left_unfinished(output)
    for weights in path.glob("checkpoints/*/model.safetensors"):
        weights.write_bytes(weights.read_bytes()[:-8])

    with pytest.raises(StorageError, match=r"none of its checkpoints is whole.*train\.resume=never"):
        run(inputs, output)

    status = read_status(path)
    assert status is not None and (status.state, status.code) == ("failed", 5)


def test_fault_005_a_full_disk_at_the_end_names_the_model_and_the_run_can_go_on(
    inputs: Path, tmp_path: Path
) -> None:
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, old[1]))
    try:
        with pytest.raises(StorageError, match=r"/model: model not written") as caught:
            run(inputs, tmp_path, "train.save_every=0")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)

    path = only(tmp_path)
    status = read_status(path)
    assert caught.value.code == 5
    assert status is not None and (status.state, status.code, status.resumable) == ("failed", 5, False)
    assert not (path / "model").exists() and not (path / ".tmp-model").exists()
    assert run(inputs, tmp_path, "train.save_every=0").state == "finished"


def test_bf16_weights_that_change_the_margin_are_refused_and_said(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(inputs, tmp_path, "model.save_dtype=bf16", "optim.lr=1e-6")

    assert _dtype(only(tmp_path)) == torch.float32
    assert "saved in fp32: bf16 would change the mean margin" in capsys.readouterr().err


def test_bf16_weights_are_saved_where_the_recipe_insists(inputs: Path, tmp_path: Path) -> None:
    status = run(inputs, tmp_path, "model.save_dtype=bf16", "optim.lr=1e-6", "model.allow_rounding=true")

    assert _dtype(only(tmp_path)) == torch.bfloat16
    assert status.margins["saved"] == status.margins["bf16"] != status.margins["trained"]


@pytest.mark.parametrize("insist", [False, True])
def test_bf16_without_held_out_rows_is_never_silently_ignored(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], insist: bool
) -> None:
    run(
        inputs,
        tmp_path,
        "model.save_dtype=bf16",
        "data.split.eval=0",
        "train.max_steps=1",
        f"model.allow_rounding={str(insist).lower()}",
    )

    assert _dtype(only(tmp_path)) == (torch.bfloat16 if insist else torch.float32)
    assert "nothing is held out" in capsys.readouterr().err


def _dtype(path: Path) -> torch.dtype:
    weights = load_file(path / "model" / "model.safetensors")
    (dtype,) = {weight.dtype for weight in weights.values()}
    return dtype


def test_samples_cannot_act_on_the_terminal() -> None:
    lines = sample_lines(
        [{"prompt": "clear\x1b[2J\nme", "before": "a\x07b", "after": "\x9b31m plain \u202e"}]
    )

    assert lines == ["prompt  clear\\x1b[2J me", "before  a\\x07b", "after   \\x9b31m plain \\u202e"]


@pytest.mark.parametrize(
    "overrides",
    [(), ("model.save_dtype=bf16", "model.allow_rounding=true"), ("method.name=simpo",)],
    ids=["fp32", "bf16", "simpo"],
)
def test_what_the_end_found_is_kept_as_dpo_eval_would_find_it(
    inputs: Path, tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    run(inputs, tmp_path / "runs", "train.max_steps=2", "train.save_every=0", *overrides)
    path = only(tmp_path / "runs")
    kept = read_results(path / "eval" / "eval")
    assert kept is not None and not is_older(path / "eval" / "eval", path / "model")

    subject = subject_of(str(path))
    measured = measure(subject, "eval", Runtime("fp32"))
    assert kept[1] == json.loads(json.dumps(measured.facts))
    assert kept[0].rewards.tolist() == measured.rows.rewards.tolist()
    assert kept[0].key.tolist() == measured.rows.key.tolist()
