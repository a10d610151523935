"""Rows of data sets that the `datasets` library knows: on the hub, in its cache, or saved to a folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from dpo_cli.data.rows import PlacedRow, Problems
from dpo_cli.errors import DataError

if TYPE_CHECKING:
    from dpo_cli.recipe.schema import Source


def open_dataset(source: Source, key: str) -> Callable[[Problems], Iterator[PlacedRow]]:
    """Give what reads the rows of a data set, which is loaded here; code inside a data set is never run.

    Raises:
        DataError: it cannot be reached or found, or has no split of that name.
    """
    split = source.split or ("test" if key.startswith("data.eval") else "train")
    loaded = _load(source, split, key)
    return lambda problems: (PlacedRow(row, f"{source.path}/{split}[{i}]") for i, row in enumerate(loaded))


def _load(source: Source, split: str, key: str) -> Any:
    import datasets
    from huggingface_hub.errors import HTTPError

    try:
        if not os.path.isdir(source.path):
            return datasets.load_dataset(
                source.path, data_dir=source.data_dir, split=split, revision=source.revision
            )
        saved = datasets.load_from_disk(source.path)
    except (OSError, ValueError, HTTPError) as error:
        what = " ".join(str(error).split()) or type(error).__name__
        fix = f"name a local file, another {key}.split, or go online once so that the data set is cached"
        raise DataError.of(f"{key}.path", f"cannot load data set '{source.path}': {what}", fix) from error
    if not isinstance(saved, dict):
        return saved
    if split not in saved:
        fix = f"{key}.split={sorted(saved)[0]}"
        raise DataError.of(f"{key}.split", f"'{source.path}' has {sorted(saved)}, not '{split}'", fix)
    return saved[split]
