"""The results of `dpo eval` on disk, which `dpo compare` reads."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from dpo_cli.errors import StorageError
from dpo_cli.evaluate.pairs.pair_rows import FILE_NAME, PairRows, read_rows, write_rows

EVAL = "eval"
"""Folder of results in a run's folder."""
FACTS = "eval.json"


def write_results(rows: PairRows, facts: dict[str, Any], folder: Path) -> None:
    """Write `pairs.parquet` and then `eval.json`, which says that both are there.

    Raises:
        StorageError: they cannot be written.
    """
    write_rows(rows, folder / FILE_NAME)
    temporary = folder / f"{FACTS}.tmp"
    try:
        temporary.write_text(json.dumps(facts, indent=1) + "\n")
        os.replace(temporary, folder / FACTS)
    except OSError as error:
        what = f"cannot be written: {error.strerror}"
        raise StorageError.of(str(folder / FACTS), what, "--out FOLDER") from None


def read_results(folder: Path) -> tuple[PairRows, dict[str, Any]] | None:
    """Return the rows and facts of a folder; None where it holds none.

    Raises:
        StorageError: they cannot be read.
    """
    try:
        facts: dict[str, Any] = json.loads((folder / FACTS).read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise StorageError.of(
            str(folder / FACTS), f"cannot be read: {error}", "run `dpo eval` again"
        ) from None
    return read_rows(folder / FILE_NAME), facts


def is_older(folder: Path, model: Path) -> bool:
    """Return whether results were made before the model that is there now."""
    made = (folder / FACTS).stat().st_mtime
    return any(path.stat().st_mtime > made for path in model.glob("*.safetensors"))
