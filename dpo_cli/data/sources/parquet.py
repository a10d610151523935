"""Read Parquet files, page checksums verified."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from dpo_cli.data.sources.placed_rows import PlacedRow, Problems
from dpo_cli.errors import DataError

if TYPE_CHECKING:
    import pyarrow.parquet as pq


MAX_EXPANSION = 1000
"""Text shrinks ten- to fiftyfold; a file that unfolds to more than this, and to more than 256 MiB, was made to fill memory."""
_HARMLESS_BYTES = 256 * 2**20
_BATCH_ROWS = 64
"""Rows unfolded at once: a thousand of a megabyte each would be a gigabyte before anything could be counted."""


def read(path: Path, problems: Problems) -> Iterator[PlacedRow]:
    """Return the rows of a file; a Parquet file is whole or damaged, so nothing goes to `problems`.

    Raises:
        DataError: damaged or no Parquet file, or one that unfolds to far more than it holds.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    index = unfolded = 0
    try:
        room = max(_HARMLESS_BYTES, MAX_EXPANSION * path.stat().st_size)
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            _check_expansion(path, _stated_bytes(file), room)
            for batch in file.iter_batches(_BATCH_ROWS):
                unfolded += batch.nbytes
                _check_expansion(path, unfolded, room)
                for row in batch.to_pylist():
                    yield PlacedRow(row, f"{path}[{index}]")
                    index += 1
    except (pa.ArrowException, OSError) as error:
        what = " ".join(str(error).split())
        raise DataError.of(
            str(path), f"damaged or no Parquet file, after row {index}: {what}", "get the file again"
        ) from error


def _stated_bytes(file: pq.ParquetFile) -> int:
    groups = (file.metadata.row_group(number) for number in range(file.metadata.num_row_groups))
    return sum(group.total_byte_size for group in groups)


def _check_expansion(path: Path, n_bytes: int, room: int) -> None:
    if n_bytes > room:
        what = f"unfolds to more than {n_bytes / 2**20:,.0f} MiB from {path.stat().st_size:,} bytes"
        raise DataError.of(str(path), what, "get the file again, from where you trust it")
