"""Read Parquet files, page checksums verified."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dpo_cli.data.rows import PlacedRow, Problems
from dpo_cli.errors import DataError


def read(path: Path, problems: Problems) -> Iterator[PlacedRow]:
    """Give the rows of a file; a Parquet file is whole or damaged, so nothing goes to `problems`.

    Raises:
        DataError: damaged or no Parquet file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    index = 0
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            for batch in file.iter_batches():
                for row in batch.to_pylist():
                    yield PlacedRow(row, f"{path}[{index}]")
                    index += 1
    except (pa.ArrowException, OSError) as error:
        what = " ".join(str(error).split())
        raise DataError.of(
            str(path), f"damaged or no Parquet file, after row {index}: {what}", "get the file again"
        ) from error
