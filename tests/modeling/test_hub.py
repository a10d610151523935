"""From a model's name to its folder, against a hub on the loopback interface."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from dpo_cli.errors import ModelError
from dpo_cli.modeling.hub import model_folder
from dpo_cli.modeling.load import load_model
from tests.fakes import write_model
from tests.hub import FakeHub, point_to, serving


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_model(tmp_path_factory.mktemp("hub") / "open")
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    return folder


@pytest.fixture
def hub(model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FakeHub]]:
    """A hub that answers, with an empty cache."""
    with serving(model_dir, tmp_path, monkeypatch) as handler:
        yield handler


def test_a_hub_model_is_fetched_without_weights_and_then_with_them(hub: type[FakeHub]) -> None:
    folder = model_folder("org/open", None, weights=False)
    assert (folder / "config.json").is_file()
    assert (folder / "chat_template.jinja").is_file()
    assert not any("safetensors" in path for path in hub.asked)

    folder = model_folder("org/open", None, weights=True)
    assert load_model(folder, vocabulary=261).config.vocab_size == 300
    assert not any(path.endswith(".bin") for path in hub.asked), "pickled weights are not even fetched"


def test_a_fetched_model_needs_no_hub_again(hub: type[FakeHub], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = model_folder("org/open", None, weights=True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    assert model_folder("org/open", None, weights=True) == folder


def test_fault_070_a_name_that_the_hub_does_not_know(hub: type[FakeHub]) -> None:
    assert _refusal("org/none") == (
        "model.name: the hub has no 'org/none'. Fix: check the name, or `hf auth login` if it is private"
    )


def test_fault_070_a_gated_model(hub: type[FakeHub]) -> None:
    assert _refusal("org/gated") == (
        "model.name: 'org/gated' is gated. Fix: accept its terms on the hub, then `hf auth login`"
    )


def test_fault_070_an_unknown_revision(hub: type[FakeHub]) -> None:
    assert _refusal("org/open", "v9") == (
        "model.revision: 'org/open' has no revision 'v9'. Fix: a branch, tag or commit of it"
    )


def test_fault_070_a_download_that_breaks_off(hub: type[FakeHub], monkeypatch: pytest.MonkeyPatch) -> None:
    def cut_short(self: FakeHub) -> None:
        if self.command == "HEAD" or "/resolve/" not in self.path:
            return FakeHub.do_GET(self)
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.close_connection = True

    monkeypatch.setattr(hub, "do_GET", cut_short)
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between the hub client's own attempts

    told = _refusal("org/open")

    assert "the download of 'org/open' broke off: " in told
    assert told.endswith("Fix: run the same command again: what has arrived is kept")


def test_fault_070_offline_and_not_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    assert "name a local folder, or go online once" in _refusal("org/open")


def test_fault_070_nobody_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point_to("http://127.0.0.1:1", tmp_path, monkeypatch)

    assert "the hub is not reachable" in _refusal("org/open")


@pytest.mark.parametrize("name", ["./missing", "/missing/model", "a/b/missing"])
def test_fault_070_a_path_that_is_not_there(name: str) -> None:
    assert f"no such model folder: {Path(name)}. Fix: check the path" in _refusal(name)


def test_fault_070_a_name_that_cannot_be_one() -> None:
    assert "is neither a folder nor a hub id" in _refusal("what is this?")


def test_a_refusal_names_the_key_that_asked() -> None:
    with pytest.raises(ModelError, match=r"reference\.model: no such model folder"):
        model_folder("./missing", None, weights=True, key="reference.model")


def test_the_folder_of_a_finished_run_stands_for_its_model(model_dir: Path, tmp_path: Path) -> None:
    write_model(tmp_path / "run" / "model")

    assert model_folder(str(tmp_path / "run"), None, weights=True) == tmp_path / "run" / "model"
    assert model_folder(str(model_dir), None, weights=True) == model_dir


def _refusal(name: str, revision: str | None = None) -> str:
    with pytest.raises(ModelError) as caught:
        model_folder(name, revision, weights=True)
    assert caught.value.code == 4
    return str(caught.value)
