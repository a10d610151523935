"""Keep tokenised rows by content: the same rows, tokenizer and settings are tokenised once.

A file is its own digest followed by numpy arrays, written beside its place and renamed. One that is damaged is made anew.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dpo_cli.data.row_notes import Note, Reason
from dpo_cli.data.tokenize.truncate import Encoded
from dpo_cli.errors import StorageError
from dpo_cli.types import Example, TokenGroup

if TYPE_CHECKING:
    from dpo_cli.recipe.schema import Data

ENCODING_VERSION = 6
"""Raise it when the same input gives other tokens."""

DIGEST_BYTES = 32
REASONS = list(Reason)


def default_folder() -> Path:
    """Return the user's cache folder for tokenised rows."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(home) / "dpo-cli" / "tokens"


def cache_key(examples: Sequence[Example], tokenizer_digest: str, data: Data, whole_rows: bool) -> str:
    """Return the digest of everything that decides the tokens of these examples."""
    settings = [
        data.max_length,
        data.long_prompt,
        data.long_completion,
        data.system,
        data.chat_template_kwargs,
        data.thinking,
        data.merge_system,
        data.control_tokens,
        *(["whole_rows"] if whole_rows else []),
    ]
    digest = hashlib.blake2b(_canonical([ENCODING_VERSION, tokenizer_digest, settings]), digest_size=16)
    for example in examples:
        digest.update(
            _canonical([example.prompt, example.completions, example.tools, example.template_kwargs])
        )
    return digest.hexdigest()


def _canonical(value: Any) -> bytes:
    # Keys stay in order: a template may print them in it.
    return json.dumps(value, default=str).encode() + b"\n"


def load(path: Path, examples: Sequence[Example]) -> list[Encoded] | None:
    """Return the stored result for these examples; None if there is none or it is damaged."""
    try:
        raw = path.read_bytes()
    except OSError:
        return None
    if hashlib.blake2b(raw[DIGEST_BYTES:], digest_size=DIGEST_BYTES).digest() != raw[:DIGEST_BYTES]:
        return None
    with np.load(io.BytesIO(raw[DIGEST_BYTES:]), allow_pickle=False) as arrays:
        return _unpack({name: arrays[name] for name in arrays.files}, examples)


def save(path: Path, results: Sequence[Encoded]) -> None:
    """Store results, whole or not at all.

    Raises:
        StorageError: the folder cannot be written.
    """
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **_pack(results))
    payload = buffer.getvalue()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".tmp-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(hashlib.blake2b(payload, digest_size=DIGEST_BYTES).digest() + payload)
            os.replace(name, path)
        except OSError:
            os.unlink(name)
            raise
    except OSError as error:
        what = f"tokenised rows cannot be stored: {error.strerror}"
        raise StorageError.of(str(path.parent), what, "data.cache=<a folder you can write>") from error


def _pack(results: Sequence[Encoded]) -> dict[str, np.ndarray]:
    groups = [result.group for result in results if result.group is not None]
    completions = [ids for group in groups for ids in group.completions]
    masks = [mask for group in groups for mask in group.masks]
    return {
        "reason": np.array([REASONS.index(r.reason) if r.reason else -1 for r in results], dtype=np.int8),
        "notes": np.array([int(r.notes) for r in results], dtype=np.int16),
        "k": np.array([len(group.completions) for group in groups], dtype=np.int16),
        "prompt_lengths": np.array([len(group.prompt) for group in groups], dtype=np.int32),
        "lengths": np.array([len(ids) for ids in completions], dtype=np.int32),
        "prompts": _joined([group.prompt for group in groups], np.int32),
        "completions": _joined(completions, np.int32),
        "masks": np.packbits(_joined(masks, np.bool_)),
    }


def _joined(parts: Sequence[np.ndarray], dtype: Any) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0, dtype=dtype)


def _unpack(arrays: dict[str, np.ndarray], examples: Sequence[Example]) -> list[Encoded]:
    prompts = iter(np.split(arrays["prompts"], np.cumsum(arrays["prompt_lengths"])[:-1]))
    cuts = np.cumsum(arrays["lengths"])[:-1]
    completions = iter(np.split(arrays["completions"], cuts))
    bits = np.unpackbits(arrays["masks"], count=len(arrays["completions"])).astype(bool)
    masks = iter(np.split(bits, cuts))
    ks = iter(arrays["k"].tolist())
    results = []
    for example, reason, notes in zip(
        examples, arrays["reason"].tolist(), arrays["notes"].tolist(), strict=True
    ):
        if reason >= 0:
            results.append(Encoded(None, REASONS[reason], Note(notes)))
            continue
        pairs = [(next(completions), next(masks)) for _ in range(next(ks))]
        ids, scored = zip(*pairs, strict=True)
        results.append(Encoded(TokenGroup(next(prompts), ids, scored, example.source), None, Note(notes)))
    return results
