"""The digest of everything but the rows that decides a reference log-prob: weights, config, arithmetic."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import torch
from transformers import PreTrainedModel

from dpo_cli.files import commit, make_private
from dpo_cli.modeling.adapters import base_parameters
from dpo_cli.modeling.hub import ADAPTER_CONFIG
from dpo_cli.reference.store import VERSION

_OF_THE_PLACE = ("_name_or_path", "transformers_version", "use_cache", "dtype")
"""Config entries that say where a model came from or how it is loaded, not what it computes."""


def namespace(model: PreTrainedModel, precision: str, layout: str, weights: str | None = None) -> str:
    """Return the namespace of a reference.

    Args:
        model: the reference.
        precision: `fp32` or `bf16`.
        layout: `packed` or `padded`.
        weights: `weights_digest` of the model, where it is known.
    """
    config = {k: v for k, v in model.config.to_dict().items() if k not in _OF_THE_PLACE}
    parts = [VERSION, precision, layout, config, weights or weights_digest(model)]
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def weights_digest(model: PreTrainedModel, adapter: bool = False) -> str:
    """Return a digest over the tensors and an adapter's factors, not the files: re-sharding, renaming or moving a model changes nothing.

    Args:
        model: before its first step.
        adapter: whether its adapter is part of the reference; a fresh one changes nothing, so its base has the digest it has alone.
    """
    named = sorted(model.named_parameters() if adapter else base_parameters(model))
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # hashing lets go of the interpreter's lock
        digests = list(pool.map(lambda item: _tensor_digest(item[1]), named))
    whole = hashlib.blake2b(digest_size=16)
    for (name, weight), digest in zip(named, digests, strict=True):
        whole.update(f"{name} {weight.dtype} {tuple(weight.shape)} {digest}\n".encode())
    if adapter:  # the factor of a low-rank update is in no tensor
        factors = ((name, getattr(module, "scaling", None)) for name, module in model.named_modules())
        whole.update(json.dumps(sorted((n, f) for n, f in factors if isinstance(f, dict))).encode())
    return whole.hexdigest()


def remembered_digest(model: PreTrainedModel, folders: Sequence[Path], memo: Path) -> str:
    """Return `weights_digest`, from a memo where the folder's weight files are the very same ones: a large model takes half a minute.

    The memo is keyed by path, size, time and inode. Where it is wrong all the same, the spot check finds other values.

    Args:
        model: as loaded from the folders, before any step.
        folders: its model folder, and that of the adapter which belongs to it, whose settings count as weights.
        memo: file that remembers; made where it is missing, and left alone where it cannot be written.
    """
    names = ("*.safetensors", ADAPTER_CONFIG)
    files = [path for folder in folders for name in names for path in sorted(folder.glob(name))]
    key = _files_key(files, str(model.dtype))
    known = _read(memo)
    if key not in known:
        known[key] = weights_digest(model, adapter=len(folders) > 1)
        with suppress(OSError):
            make_private(memo.parent)
            commit(memo.parent, memo.name, json.dumps(known, indent=1).encode())
    return known[key]


def _files_key(files: Sequence[Path], loaded_as: str) -> str:
    whole = hashlib.blake2b(loaded_as.encode(), digest_size=16)
    for path in files:
        real = path.resolve()  # a hub snapshot links to its blobs
        status = real.stat()
        whole.update(f"{real}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ino}\n".encode())
    return whole.hexdigest()


def _read(memo: Path) -> dict[str, str]:
    try:
        known = json.loads(memo.read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _tensor_digest(weight: torch.Tensor) -> str:
    array = weight.detach().cpu().contiguous().view(torch.uint8).numpy()
    return hashlib.blake2b(array.data, digest_size=16).hexdigest()
