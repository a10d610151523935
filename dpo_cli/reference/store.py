"""Reference log-probs on disk, shared by all runs: a completion is scored once, ever.

A namespace folder stands for reference weights and arithmetic; in it lie immutable Parquet segments, each named by the digest of
its bytes, written beside their place, synced and renamed. So there are no locks: any number of writers, safe to kill anywhere.
What is damaged is set aside and scored again. Nothing of the loss, the seed or the data set's order is in a key.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import math
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from transformers import PreTrainedModel

from dpo_cli.errors import StorageError

log = logging.getLogger("dpo_cli")

VERSION = 1
"""Raise it when the same weights and ids give other values."""

Values = Mapping[str, tuple[float, int]]
"""Completion key -> (summed log-prob in nats, scored tokens)."""

_SCHEMA = pa.schema([("key", pa.string()), ("sum_logp", pa.float64()), ("n_tokens", pa.int32())])


def default_root() -> Path:
    """Give the user's cache folder for reference log-probs."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(home) / "dpo-cli" / "reference"


def namespace(model: PreTrainedModel, precision: str, layout: str) -> str:
    """Give the digest of everything but the rows that decides a value: weights, model config, arithmetic, layout.

    Over tensors, not files: re-sharding, renaming or moving the model changes nothing.

    Args:
        model: the reference.
        precision: `fp32` or `bf16`.
        layout: `packed` or `padded`.
    """
    digest = hashlib.blake2b(digest_size=16)
    config = {
        k: v
        for k, v in model.config.to_dict().items()
        if k not in ("_name_or_path", "transformers_version", "use_cache", "dtype")
    }
    digest.update(json.dumps([VERSION, precision, layout, config], sort_keys=True, default=str).encode())
    for name, weight in sorted(model.named_parameters()):
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        digest.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


class Store:
    """One namespace of the store."""

    def __init__(self, root: Path, name: str, about: Mapping[str, Any]) -> None:
        """Open or make the namespace; `about` says in words what it is, for people.

        Raises:
            StorageError: the folder cannot be made.
        """
        self.folder = root / f"v{VERSION}" / name
        self._segments = self.folder / "seg"
        try:
            self._segments.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not (self.folder / "meta.json").exists():
                _commit(self.folder, "meta.json", json.dumps(dict(about), indent=1).encode())
        except OSError as error:
            raise StorageError.of(
                str(self.folder), f"cannot be written: {error.strerror}", "reference.store=<a folder>"
            ) from None

    def read(self) -> dict[str, tuple[float, int]]:
        """Give all values of the namespace; a damaged segment is moved to `bad/` with a warning."""
        values: dict[str, tuple[float, int]] = {}
        for path in sorted(self._segments.glob("*.parquet")):
            try:
                values.update(_parse(path))
            except (ValueError, OSError, pa.ArrowException) as error:
                self._set_aside(path, str(error))
        return values

    def write(self, values: Values) -> Path:
        """Commit values as one new segment; give its path.

        Raises:
            StorageError: the disk is full or cannot be written; earlier segments are untouched.
        """
        keys = sorted(values)
        table = pa.table(
            [keys, [values[key][0] for key in keys], [values[key][1] for key in keys]], schema=_SCHEMA
        )
        buffer = io.BytesIO()
        pq.write_table(table, buffer, write_page_checksum=True)
        payload = buffer.getvalue()
        try:
            return _commit(self._segments, f"{_digest(payload)}.parquet", payload)
        except OSError as error:
            what = f"reference log-probs not written: {error.strerror}"
            raise StorageError.of(
                str(self._segments), what, "free some space; what is committed is kept"
            ) from None

    def _set_aside(self, path: Path, reason: str) -> None:
        bad = self.folder / "bad"
        bad.mkdir(mode=0o700, exist_ok=True)
        path.rename(bad / path.name)
        log.warning(
            "damaged reference segment set aside, its rows are scored again: %s (%s)", bad / path.name, reason
        )


def _parse(path: Path) -> dict[str, tuple[float, int]]:
    """Give a segment's values.

    Raises:
        ValueError: the bytes are not those that the name promises, or a value cannot be a log-prob.
    """
    payload = path.read_bytes()
    if _digest(payload) != path.stem:
        raise ValueError("its bytes changed since it was written")
    table = pq.read_table(io.BytesIO(payload), schema=_SCHEMA, page_checksum_verification=True)
    keys, totals, tokens = (table[name].to_pylist() for name in _SCHEMA.names)
    if not all(
        math.isfinite(total) and total <= 0 and n > 0 for total, n in zip(totals, tokens, strict=True)
    ):
        raise ValueError("a value that is no log-probability")
    return dict(zip(keys, zip(totals, tokens, strict=True), strict=True))


def _digest(payload: bytes) -> str:
    return hashlib.blake2b(payload, digest_size=16).hexdigest()


def _commit(folder: Path, name: str, payload: bytes) -> Path:
    """Write a file whole or not at all, and make its name durable."""
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=".tmp-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, folder / name)
    except OSError:
        os.unlink(temporary)
        raise
    parent = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)
    return folder / name
