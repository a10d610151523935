"""From a model's name to its folder, against a hub on the loopback interface."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

from dpo_cli.errors import ModelError
from dpo_cli.modeling.hub import model_folder
from dpo_cli.modeling.load import load_model
from tests.fakes import write_model

SHA = "0123456789abcdef0123456789abcdef01234567"


class FakeHub(BaseHTTPRequestHandler):
    """Serves `org/open` from a folder; `org/gated` lists its files but does not give them; anything else is unknown."""

    folder: Path
    asked: list[str]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.asked.append(path)
        known = any(name in path for name in ("org/open/", "org/gated/"))
        if not known:
            return self._refuse(404 if "org/" in path else 401, "RepoNotFound")
        if "/revision/" in path and not path.endswith(("/main", SHA)):
            return self._refuse(404, "RevisionNotFound")
        if "/revision/" in path:
            return self._send(json.dumps({"id": "org/open", "sha": SHA}).encode())
        if "/tree/" in path:
            return self._send(json.dumps([_entry(file) for file in sorted(self.folder.iterdir())]).encode())
        if "org/gated/" in path:
            return self._refuse(401, "GatedRepo")
        return self._send((self.folder / path.rpartition("/")[2]).read_bytes())

    def _send(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{len(body)}"')
        self.send_header("X-Repo-Commit", SHA)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _entry(file: Path) -> dict[str, object]:
    return {
        "type": "file",
        "path": file.name,
        "size": file.stat().st_size,
        "oid": f"{file.stat().st_size:040d}",
    }


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_model(tmp_path_factory.mktemp("hub") / "open")
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    return folder


@pytest.fixture
def hub(model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FakeHub]]:
    """A hub that answers, with an empty cache."""
    handler = type("Handler", (FakeHub,), {"folder": model_dir, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    _point_to(f"http://127.0.0.1:{server.server_port}", tmp_path, monkeypatch)
    yield handler
    server.shutdown()
    thread.join()
    server.server_close()


def _point_to(endpoint: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache / "hub"))


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
    _point_to("http://127.0.0.1:1", tmp_path, monkeypatch)

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
