"""Rows of data sets that the `datasets` library knows: on the hub, in its cache, or saved to a folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpo_cli.data.sources.placed_rows import PlacedRow, Problems
from dpo_cli.errors import DataError
from dpo_cli.packages import package_problems

if TYPE_CHECKING:
    from dpo_cli.recipe.schema import Source


def open_dataset(source: Source, key: str) -> Callable[[Problems], Iterator[PlacedRow]]:
    """Return what reads the rows of a data set, which is loaded here; code inside a data set is never run.

    Raises:
        DataError: it cannot be reached or found, or has no split of that name.
    """
    split = split_of(source, key)
    loaded = _load(source, split, key)
    return lambda problems: (PlacedRow(row, f"{source.path}/{split}[{i}]") for i, row in enumerate(loaded))


def fetch_dataset(source: Source, key: str) -> tuple[Path, str | None]:
    """Return where the files of a data set lie, brought here if need be, and its commit where a hub says one.

    Raises:
        DataError: as `open_dataset`.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HTTPError

    loaded = _load(source, split_of(source, key), key)
    place = Path(loaded.cache_files[0]["filename"]).parent if loaded.cache_files else Path(source.path)
    if os.path.isdir(source.path):
        return place, None
    try:
        return (
            place,
            HfApi(endpoint=constants.ENDPOINT).dataset_info(source.path, revision=source.revision).sha,
        )
    except (HTTPError, OSError):
        return place, None  # offline and cached


def split_of(source: Source, key: str) -> str:
    """Return the split that is read where the source at a key names none."""
    return source.split or ("test" if key.startswith("data.eval") else "train")


def _refusal(source: Source) -> tuple[str, str] | None:
    """Ask the hub why a data set cannot be had: what is wrong and the fix; None where it says nothing, or is out of reach."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import (
        GatedRepoError,
        HTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    api = HfApi(endpoint=constants.ENDPOINT)
    try:
        api.dataset_info(source.path, revision=source.revision)
        api.auth_check(source.path, repo_type="dataset")
    except GatedRepoError:
        return f"data set '{source.path}' is gated", "accept its terms on the hub, then `hf auth login`"
    except RevisionNotFoundError:
        return (
            f"data set '{source.path}' has no revision '{source.revision}'",
            "a branch, tag or commit of it",
        )
    except RepositoryNotFoundError:
        return (
            f"the hub has no data set '{source.path}'",
            "check the name, or `hf auth login` if it is private",
        )
    except (HTTPError, OSError):
        return None
    return None


def _load(source: Source, split: str, key: str) -> Any:
    if problems := package_problems(
        "datasets", f"{key}.path", f"'{source.path}' is a data set of the hub, which", "name a file"
    ):
        raise DataError(problems)
    import datasets
    from huggingface_hub.errors import HTTPError

    try:
        if not os.path.isdir(source.path):
            return datasets.load_dataset(
                source.path, data_dir=source.data_dir, split=split, revision=source.revision
            )
        saved = datasets.load_from_disk(source.path)
    except (OSError, ValueError, HTTPError) as error:
        if not os.path.isdir(source.path) and (refused := _refusal(source)):
            raise DataError.of(f"{key}.path", *refused) from error
        what = " ".join(str(error).split()) or type(error).__name__
        fix = f"name a local file, another {key}.split, or go online once so that the data set is cached"
        raise DataError.of(f"{key}.path", f"cannot load data set '{source.path}': {what}", fix) from error
    if not isinstance(saved, dict):
        return saved
    if split not in saved:
        fix = f"{key}.split={sorted(saved)[0]}"
        raise DataError.of(f"{key}.split", f"'{source.path}' has {sorted(saved)}, not '{split}'", fix)
    return saved[split]
