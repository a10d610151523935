"""Find the files behind a source's path and give their rows, each with its place."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from dpo_cli.data.sources import csv_tables, jsonl, parquet
from dpo_cli.data.sources.placed_rows import PlacedRow, Problems, Rows
from dpo_cli.errors import DataError

if TYPE_CHECKING:
    from dpo_cli.recipe.schema import Source

TEXT_SUFFIXES = {
    ".jsonl": jsonl.read,
    ".ndjson": jsonl.read,
    ".json": jsonl.read,
    ".csv": csv_tables.read,
    ".tsv": csv_tables.read,
}
SUFFIXES = (*TEXT_SUFFIXES, ".parquet", *(f"{suffix}.gz" for suffix in TEXT_SUFFIXES))
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def read_source(source: Source, key: str, problems: Problems) -> Rows:
    """Return the rows of a source, at most `source.limit`; lines that cannot be read go to `problems` in the first pass.

    Args:
        source: path (file, glob or data set name) with its options.
        key: the source's place in the recipe, such as `data.train[0]`, for messages.
        problems: collects unreadable lines.

    Raises:
        DataError: nothing there, a folder, an unknown file type, a damaged file, a data set that cannot be loaded; some of it
            only while the rows are read.
    """
    if is_dataset(source.path):
        from dpo_cli.data.sources.hub import open_dataset

        return Rows(open_dataset(source, key), problems, source.limit)
    files = [(path, _reader(path)) for path in find_files(source.path, key)]
    return Rows(
        lambda problems: (row for path, read in files for row in read(path, problems)), problems, source.limit
    )


def find_files(path: str, key: str) -> list[Path]:
    """Return the files that a path or glob names, sorted.

    Raises:
        DataError: none, or a folder.
    """
    place = f"{key}.path"
    expanded = os.path.expanduser(path)
    if os.path.isdir(expanded):
        inside = sorted({Path(name).suffix for name in os.listdir(expanded)} & {*SUFFIXES, ".gz"})
        fix = (
            f"{path.rstrip('/')}/*{inside[0]}"
            if inside
            else f"name a file; known types: {', '.join(SUFFIXES)}"
        )
        raise DataError.of(place, f"'{path}' is a folder", fix)
    if glob.has_magic(expanded) and not os.path.exists(expanded):
        found = sorted(name for name in glob.glob(expanded, recursive=True) if os.path.isfile(name))
        if not found:
            raise DataError.of(
                place, f"no file matches '{os.path.abspath(expanded)}'", "check the folder and the pattern"
            )
        return [Path(name) for name in found]
    if not os.path.isfile(expanded):
        raise DataError.of(place, f"no such file: '{os.path.abspath(expanded)}'", "check the path")
    return [Path(expanded)]


def is_dataset(path: str) -> bool:
    """Return whether a path names a data set, on a hub or saved by `datasets`, and not files."""
    return _is_saved_dataset(path) or _names_dataset(path)


def _names_dataset(path: str) -> bool:
    """Return whether a path is the name of a data set: it looks like one, is no known file type, and no such file exists."""
    return bool(HUB_ID.fullmatch(path)) and not path.endswith(SUFFIXES) and not os.path.exists(path)


def _is_saved_dataset(path: str) -> bool:
    return any(os.path.isfile(os.path.join(path, name)) for name in ("dataset_dict.json", "state.json"))


def _reader(path: Path) -> Callable[[Path, Problems], Iterator[PlacedRow]]:
    if not path.name.endswith(SUFFIXES):
        raise DataError.of(str(path), f"unknown file type '{path.suffix}'", f"one of: {', '.join(SUFFIXES)}")
    if path.suffix == ".parquet":
        return parquet.read
    return TEXT_SUFFIXES[Path(path.name.removesuffix(".gz")).suffix]
