"""Reference log-probs to and from files with TRL's column names."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dpo_cli import methods
from dpo_cli.data.dataset import DataRow
from dpo_cli.data.sources.files import read_source
from dpo_cli.data.sources.placed_rows import Problems
from dpo_cli.errors import DataError, RecipeError, StorageError
from dpo_cli.recipe.load import Loaded
from dpo_cli.recipe.schema import Source, Split
from dpo_cli.reference.cached import ReferenceValues
from dpo_cli.reference.precompute import Session
from dpo_cli.reference.provide import open_store_of
from dpo_cli.reference.spot_checks import Spot
from dpo_cli.reference.store import Store

COLUMNS = ("ref_chosen_logps", "ref_rejected_logps")
"""TRL's names: summed log-prob of each answer, nats."""


def check_pairs(loaded: Loaded) -> None:
    """Check that the recipe's rows are pairs, which the two columns are made for.

    Raises:
        RecipeError: its method trains on something else.
    """
    name = loaded.recipe.method.name
    if methods.get(name).data != "pairs":
        what = (
            f"'{name}' trains on single completions, the columns {' and '.join(COLUMNS)} are those of pairs"
        )
        raise RecipeError.of(str(loaded.path), what, "method.name=dpo: the values are the same")


def export(rows: Sequence[DataRow], values: ReferenceValues, path: Path) -> None:
    """Write rows with their log-probs as Parquet: text, the token ids that were scored, and TRL's two columns.

    Raises:
        DataError: rows of plain text beside rows of messages, which no one table holds.
        StorageError: the file cannot be written.
    """
    lines = [_line(row, values) for row in rows]
    try:
        table = pa.Table.from_pylist(lines)
    except pa.ArrowException as error:
        what = f"the rows do not fit into one table: {' '.join(str(error).split())}"
        raise DataError.of(str(path), what, "export sources of one kind at a time") from None
    try:
        pq.write_table(table, path)
    except OSError as error:
        raise StorageError.of(str(path), f"cannot be written: {error.strerror}", "another path") from None


def _line(row: DataRow, values: ReferenceValues) -> dict[str, Any]:
    example, group = row.example, row.group
    (chosen, _), (rejected, _) = values.of_keys(group.keys)
    return {
        "prompt": _plain(example.prompt),
        "chosen": _plain(example.completions[0]),
        "rejected": _plain(example.completions[1]),
        "prompt_ids": group.prompt.tolist(),
        "chosen_ids": group.completions[0].tolist(),
        "rejected_ids": group.completions[1].tolist(),
        COLUMNS[0]: chosen,
        COLUMNS[1]: rejected,
    }


def _plain(text: Any) -> Any:
    return text if isinstance(text, str) else [dict(message) for message in text]


def only(loaded: Loaded, file: str) -> Loaded:
    """Return the recipe with one file as all of its data, nothing held out."""
    data = replace(loaded.recipe.data, train=[Source(path=file)], eval=[], split=Split(eval=0.0))
    return replace(loaded, recipe=replace(loaded.recipe, data=data))


def take_in(session: Session) -> tuple[int, Spot, Store]:
    """Import the log-probs that stand beside the session's rows; return the completions taken, the check and the store.

    A few are scored again before any is taken. In the store they lie apart, and each run checks them first.

    Raises:
        DataError: the columns are missing, or hold what is no log-prob.
        StorageError: the values are not this reference's, or the store cannot be written.
    """
    source = session.recipe.data.train[0]
    problems = Problems()
    stated = {row.place: row.values for row in read_source(source, "data.train[0]", problems)}
    problems.raise_any()
    values = {
        key: (total, n)
        for row in session.rows
        for key, total, n in zip(
            row.group.keys, _stated(stated[row.group.source], row, problems), row.group.scored, strict=True
        )
    }
    problems.raise_any()
    groups = [row.group for row in session.rows]
    store = open_store_of(session.recipe, session.runtime, session.model)
    checked = session.check(groups, ReferenceValues(values), Path(source.path))
    store.take_in(values)
    return len(values), checked, store


def _stated(line: Mapping[str, Any], row: DataRow, problems: Problems) -> list[float]:
    found = [line.get(name) for name in COLUMNS]
    for name, value in zip(COLUMNS, found, strict=True):
        if not isinstance(value, int | float) or not (math.isfinite(value) and value <= 0):
            problem = "has no" if name not in line else f"{value!r} is no log-prob in"
            problems.add(row.group.source, f"{problem} '{name}'", f"columns {' and '.join(COLUMNS)}, in nats")
            return [0.0, 0.0]
    return [float(value) for value in found if value is not None]
