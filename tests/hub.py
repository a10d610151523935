"""A model hub on the loopback interface that speaks as much of the protocol as the tests need."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

SHA = "0123456789abcdef0123456789abcdef01234567"


class FakeHub(BaseHTTPRequestHandler):
    """Serves `org/open` from a folder, and `org/pairs`, a data set of one file; `org/gated` lists its files but does not give them.

    Takes what is pushed to `org/new` (private) and to `org/public`, where the request carries a token.
    """

    folder: Path
    asked: list[str]
    rows: bytes
    made: list[dict[str, object]]
    pushed: dict[str, bytes]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        path, length = self.path.partition("?")[0], int(self.headers.get("Content-Length") or 0)
        body, here = self.rfile.read(length), f"http://{self.headers['Host']}"
        self.asked.append(path)
        if self.headers.get("Authorization") != "Bearer hf_good":
            return self._refuse(403, "Forbidden")
        if path == "/api/repos/create":
            self.made.append(json.loads(body))
            return self._send(json.dumps({"url": f"{here}/org/new", "name": "org/new"}).encode())
        if "/preupload/" in path:
            files = [
                {"path": each["path"], "uploadMode": "regular", "shouldIgnore": False}
                for each in json.loads(body)["files"]
            ]
            return self._send(json.dumps({"files": files}).encode())
        if "/commit/" in path:
            for each in map(json.loads, body.splitlines()):
                if each["key"] == "file":
                    self.pushed[each["value"]["path"]] = base64.b64decode(each["value"]["content"])
            return self._send(
                json.dumps({"commitUrl": f"{here}/org/new/commit/1", "commitOid": SHA}).encode()
            )
        return self._send(b"{}")

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.asked.append(path)
        if path in ("/api/models/org/new", "/api/models/org/public"):
            return self._send(json.dumps({"id": path[12:], "private": path.endswith("new")}).encode())
        if path.endswith("/org/gated/auth-check"):
            return self._refuse(403, "GatedRepo")
        if path == "/api/datasets/org/gated":
            return self._send(json.dumps({"id": "org/gated", "sha": SHA}).encode())
        if "datasets/org/pairs" in path:
            return self._send_data_set(path)
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

    def _send_data_set(self, path: str) -> None:
        if "/resolve/" in path:
            is_there = path.endswith("/train.jsonl")
            return self._send(self.rows) if is_there else self._refuse(404, "EntryNotFound")
        if "/tree/" in path:
            file = {"type": "file", "path": "train.jsonl", "size": len(self.rows), "oid": f"{1:040d}"}
            return self._send(json.dumps([file]).encode())
        facts = {"id": "org/pairs", "sha": SHA, "siblings": [{"rfilename": "train.jsonl"}]}
        return self._send(json.dumps(facts).encode())

    def _send(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{len(body)}"')
        self.send_header("X-Repo-Commit", SHA)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Repo-Commit", SHA)
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


@contextmanager
def serving(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, rows: bytes = b""
) -> Iterator[type[FakeHub]]:
    """Run a hub that serves a model's folder and a data set's rows, and point the client at it with an empty cache."""
    handler = type(
        "Handler", (FakeHub,), {"folder": folder, "rows": rows, "asked": [], "made": [], "pushed": {}}
    )
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    point_to(f"http://127.0.0.1:{server.server_port}", cache, monkeypatch)
    yield handler
    server.shutdown()
    thread.join()
    server.server_close()


def point_to(endpoint: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the hub's client speak to an address and keep what it fetches in a folder."""
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache / "hub"))
