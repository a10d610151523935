"""Write a source's rows again without those that an audit found at fault."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from dpo_cli.data.audit.audit import Audit
from dpo_cli.data.sources.files import read_source
from dpo_cli.data.sources.placed_rows import Problems
from dpo_cli.errors import StorageError

if TYPE_CHECKING:
    from dpo_cli.recipe.schema import Source


def write_clean(source: Source, audit: Audit, path: Path) -> tuple[int, int]:
    """Write what an audit leaves of a source as JSON lines, whole or not at all; return the rows written and read.

    A row stays as its file has it, with all columns, so what reads the file reads this one.

    Raises:
        DataError: the source cannot be read.
        StorageError: the file cannot be written.
    """
    unwanted, kept, read = audit.unwanted, 0, 0
    scratch = path.with_name(f".{path.name}.tmp")
    try:
        with scratch.open("w", encoding="utf-8") as file:
            for values, place in read_source(source, "data.train[0]", Problems()):
                read += 1
                if place in audit.kept and place not in unwanted:
                    kept += 1
                    file.write(json.dumps(values, ensure_ascii=False, default=str) + "\n")
        os.replace(scratch, path)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        raise StorageError.of(str(path), f"cannot be written: {error.strerror}", "another place") from error
    return kept, read
