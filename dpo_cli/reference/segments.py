"""Segments: immutable Parquet files of log-probs, named by the digest of their bytes and their number of rows.

A file is written beside its place, synced and renamed, so that it is there whole or not at all, on network file systems too.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Set
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dpo_cli.files import commit

Values = Mapping[str, tuple[float, int]]
"""Completion key -> (summed log-prob in nats, scored tokens)."""

_SCHEMA = pa.schema([("key", pa.string()), ("sum_logp", pa.float64()), ("n_tokens", pa.int32())])


def write_segment(folder: Path, values: Values) -> Path:
    """Commit values as one segment of a folder; return its path.

    Raises:
        OSError: the disk is full or cannot be written; nothing is left behind.
    """
    keys = sorted(values)
    table = pa.table([keys, [values[k][0] for k in keys], [values[k][1] for k in keys]], schema=_SCHEMA)
    buffer = io.BytesIO()
    pq.write_table(table, buffer, write_page_checksum=True)
    payload = buffer.getvalue()
    return commit(folder, f"{_digest(payload)}-{len(keys)}.parquet", payload)


def read_segment(path: Path, wanted: Set[str] | None = None) -> dict[str, tuple[float, int]]:
    """Return a segment's values, all of them or those of the wanted keys.

    Raises:
        ValueError: the bytes are not those that the name promises, or a value cannot be a log-prob.
        OSError: it cannot be read; FileNotFoundError: another process has merged it into a larger one.
    """
    payload = path.read_bytes()
    if _digest(payload) != path.stem.partition("-")[0]:
        raise ValueError("its bytes changed since it was written")
    try:
        with pq.ParquetFile(io.BytesIO(payload), page_checksum_verification=True) as file:
            table = file.read()
    except pa.ArrowException as error:
        raise ValueError(f"no Parquet: {' '.join(str(error).split())}") from None
    if not table.schema.equals(_SCHEMA):
        raise ValueError("not the columns of this version")
    totals, tokens = table["sum_logp"].to_numpy(), table["n_tokens"].to_numpy()
    if not (np.isfinite(totals).all() and (totals <= 0).all() and (tokens > 0).all()):
        raise ValueError("a value that is no log-probability")
    if wanted is not None and table.num_rows > len(wanted):
        table = table.filter(pc.is_in(table["key"], pa.array(list(wanted), pa.string())))
    keys, sums, counts = (table[name].to_pylist() for name in _SCHEMA.names)
    rows = zip(keys, zip(sums, counts, strict=True), strict=True)
    return {key: value for key, value in rows if wanted is None or key in wanted}


def rows_of(path: Path) -> int:
    """Return the completions of a segment, from its name."""
    count = path.stem.partition("-")[2]
    return int(count) if count.isdigit() else 0


def _digest(payload: bytes) -> str:
    return hashlib.blake2b(payload, digest_size=16).hexdigest()
