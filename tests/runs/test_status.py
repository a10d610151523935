"""`status.json`: read by scripts and by the next start."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dpo_cli.runs.status import FILE_NAME, Status, read_status


def test_what_is_written_is_read(tmp_path: Path) -> None:
    status = Status(
        str(tmp_path), "abc", state="finished", code=0, step=8, steps=8, eval={"n": 3, "ci": [0, 1]}
    )
    status.write()

    assert read_status(tmp_path) == status
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]
    assert json.loads((tmp_path / FILE_NAME).read_text())["eval"] == {"n": 3, "ci": [0, 1]}


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "null", "{}", "\xff"),
        *(
            f'{{"run_dir": "x", "digest": "y", {rest}}}'
            for rest in ('"more": 1', '"eval": [1]', '"step": null')
        ),
    ],
)
def test_what_cannot_be_read_is_no_status(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE_NAME).write_bytes(text.encode("latin-1"))

    assert read_status(tmp_path) is None


def test_no_folder_has_no_status(tmp_path: Path) -> None:
    assert read_status(tmp_path / "none") is None


def test_a_status_that_cannot_be_written_does_not_stop_a_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Status(str(tmp_path), "abc").write()
    (tmp_path / "status.tmp").mkdir()

    Status(str(tmp_path), "abc", step=5).write()

    assert "status.json cannot be written" in caplog.text
    kept = read_status(tmp_path)
    assert kept is not None and kept.step == 0
