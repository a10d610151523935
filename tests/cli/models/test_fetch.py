"""`dpo fetch` and `dpo export --push`, against a hub on the loopback interface."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants
from typer.testing import CliRunner

from dpo_cli.cli.app import app
from dpo_cli.cli.models.export import export
from dpo_cli.cli.models.fetch import fetch
from dpo_cli.errors import DataError, ModelError, RecipeError
from tests.fakes import pair_rows, write_jsonl, write_model
from tests.hub import SHA, FakeHub, serving

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("hub") / "open")


@pytest.fixture
def hub(model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FakeHub]]:
    with serving(model_dir, tmp_path, monkeypatch) as handler:
        yield handler


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    write_jsonl(tmp_path / "pairs.jsonl", pair_rows(4))
    path = tmp_path / "r.yaml"
    path.write_text("model: {name: org/open}\ndata: {train: [{path: pairs.jsonl}]}\n")
    return path


def test_it_says_what_lies_where_and_how_to_pin_it_and_the_job_needs_no_hub(
    hub: type[FakeHub],
    recipe: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fetch(str(recipe), None, False)
    told = capsys.readouterr().out.splitlines()
    folder = tmp_path / "hub" / "models--org--open" / "snapshots" / SHA
    assert told[0] == f"model.name       org/open at {SHA[:12]}: {folder}"
    assert told[1].strip() == f"not pinned; to pin it, model.revision: {SHA}"
    assert told[2] == f"data.train[0].path pairs.jsonl: {tmp_path / 'pairs.jsonl'}".replace(
        "pairs.jsonl:", f"{tmp_path / 'pairs.jsonl'}:", 1
    )
    assert told[3] == f"next: HF_HUB_OFFLINE=1 dpo train {recipe}"
    assert (folder / "model.safetensors").exists() and (folder / "tokenizer.json").exists()

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    fetch(str(recipe), [f"model.revision={SHA}"], True)
    facts = json.loads(capsys.readouterr().out)["fetched"][0]
    assert (facts["place"], facts["commit"], facts["pin"]) == (str(folder), SHA, None)


def test_all_that_cannot_be_had_is_told_at_once(hub: type[FakeHub], recipe: Path) -> None:
    with pytest.raises(ModelError) as caught:
        fetch(str(recipe), ["model.name=org/gated", "reference.model=org/none"], False)
    told = caught.value.lines()
    assert "model.name: 'org/gated' is gated. Fix: accept its terms" in told[0]
    assert "reference.model: the hub has no 'org/none'" in told[1]


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("org/gated", "data set 'org/gated' is gated. Fix: accept its terms on the hub"),
        ("org/none", "the hub has no data set 'org/none'"),
    ],
)
def test_a_data_set_that_cannot_be_had_is_told_why(
    name: str, what: str, hub: type[FakeHub], recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object, **__: object) -> None:
        raise FileNotFoundError(f"Dataset '{name}' cannot be accessed")

    monkeypatch.setattr("datasets.load_dataset", missing)
    with pytest.raises(DataError, match=what):
        fetch(str(recipe), [f"data.train=[{{path: {name}}}]"], False)


@pytest.mark.slow
def test_a_data_set_is_brought_here_by_its_own_library_and_the_job_needs_no_hub(
    model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In processes of their own: `datasets` reads where the hub is when it is imported."""
    rows = "".join(json.dumps(row) + "\n" for row in pair_rows(6)).encode()
    (tmp_path / "r.yaml").write_text(
        f"model: {{name: {model_dir}}}\ndata: {{train: [{{path: org/pairs}}]}}\n"
    )
    home = {"HF_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}

    def dpo(*arguments: str, **env: str) -> str:
        command = [sys.executable, "-m", "dpo_cli", *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, env={**os.environ, **home, **env}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    with serving(model_dir, tmp_path, monkeypatch, rows) as handler:
        online = {"HF_ENDPOINT": constants.ENDPOINT, "HF_HUB_OFFLINE": "0", "HF_DATASETS_OFFLINE": "0"}
        told = json.loads(dpo("fetch", "r.yaml", "--json", **online))
        assert any(path.endswith("/train.jsonl") for path in handler.asked)
    fetched = told["fetched"][1]
    assert (fetched["commit"], fetched["pin"]) == (SHA, "data.train[0].revision")
    assert Path(fetched["place"]).is_relative_to(tmp_path / "home")
    assert "org/pairs: 6 rows, format strings, 6 kept" in dpo("check", "r.yaml", HF_HUB_OFFLINE="1")


def test_offline_and_not_cached_is_told(
    hub: type[FakeHub], recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="the hub is not reachable"):
        fetch(str(recipe), None, False)


def test_an_export_is_pushed_privately_file_by_file(
    hub: type[FakeHub],
    model_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    export(str(model_dir), out=tmp_path / "out", push="org/new")
    assert f"pushed   {constants.ENDPOINT}/org/new/commit/1" in capsys.readouterr().out
    assert hub.made[0]["visibility"] == "private"
    assert hub.pushed == {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}


def test_a_public_repository_needs_the_word(
    hub: type[FakeHub], model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    with pytest.raises(ModelError, match="'org/public' is public, and so would be"):
        export(str(model_dir), out=tmp_path / "out", push="org/public")
    assert not hub.pushed and (tmp_path / "out").is_dir()


def test_nothing_is_written_without_a_log_in_and_nothing_sent_without_the_flag(
    hub: type[FakeHub], model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(ModelError, match="no log-in to push 'org/new' with"):
        export(str(model_dir), out=tmp_path / "out", push="org/new")
    with pytest.raises(ModelError, match="'new' is no repository name"):
        export(str(model_dir), out=tmp_path / "out", push="new")
    with pytest.raises(RecipeError, match="nothing is pushed"):
        export(str(model_dir), out=tmp_path / "out", public=True)
    assert not (tmp_path / "out").exists()
    export(str(model_dir), out=tmp_path / "out")
    assert hub.asked == []


def test_a_refused_push_says_who_refused(
    hub: type[FakeHub], model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(ModelError, match="the hub refused 'org/new': 403"):
        export(str(model_dir), out=tmp_path / "out", push="org/new")


def test_both_are_commands() -> None:
    told = CliRunner().invoke(app, ["--help"]).output
    assert "fetch" in told and "export" in told
