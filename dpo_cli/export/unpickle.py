"""Pickled checkpoints to safetensors: tensors alone are read, never code, and a folder is written that everything else here takes."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dpo_cli.errors import ModelError, StorageError

INDEX = "pytorch_model.bin.index.json"
_PLAIN = {"config.json": "pytorch_model.bin", "adapter_config.json": "adapter_model.bin"}
"""The settings that make a folder a model's or an adapter's -> its weights in one piece."""
_TEXTS = ("*.json", "*.txt", "*.model", "*.jinja")
"""What is copied beside the weights: settings and tokenizer, no code."""
_NO_TENSORS = (
    pickle.UnpicklingError,
    struct.error,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What torch's restricted unpickler raises on bytes that are no table of tensors; it says nothing of that itself."""


@dataclass(frozen=True)
class Converted:
    """What was written."""

    folder: Path
    files: int
    tensors: int
    gib: float


def convert(folder: Path, out: Path) -> Converted:
    """Write a model folder's pickled weights as safetensors into a new folder, with its settings and tokenizer, whole or not at all.

    The files are read by `torch.load(weights_only=True)`, which builds tensors and plain containers and refuses everything else unread.
    One file is in memory at a time; what was written is read back and compared.

    Args:
        folder: a model folder with `pytorch_model.bin`, or the shards that its index names; an adapter's with `adapter_model.bin`.
        out: must not exist.

    Raises:
        ModelError: no pickled weights there, or files that hold more than tensors, or none.
        StorageError: `out` exists or cannot be written.
    """
    shards = _shards(folder)
    if out.exists():
        raise StorageError.of("--out", f"'{out}' is there already", "another folder")
    scratch: Path | None = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
        done = _write(shards, scratch, out)
        for path in (path for pattern in _TEXTS for path in folder.glob(pattern)):
            if path.name != INDEX:
                shutil.copyfile(path, scratch / path.name)
        scratch.chmod(0o755)
        os.rename(scratch, out)
    except OSError as error:
        what = f"cannot be written: {error.strerror or error}"
        raise StorageError.of(str(out), what, "--out FOLDER") from None
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
    return done


def _shards(folder: Path) -> list[Path]:
    """Return the files that hold the weights, in their index's order.

    Raises:
        ModelError: there are none, or some are missing.
    """
    where = str(folder)
    plain = next((weights for settings, weights in _PLAIN.items() if (folder / settings).is_file()), None)
    if plain is None:
        raise ModelError.of(where, f"no model folder: no {' or '.join(_PLAIN)}", "the folder that holds it")
    if (folder / INDEX).is_file():
        try:
            named = json.loads((folder / INDEX).read_text())["weight_map"].values()
            names = list(dict.fromkeys(str(name) for name in named))
        except (ValueError, KeyError, AttributeError):
            raise ModelError.of(str(folder / INDEX), "no index of weights", "copy the model again") from None
    else:
        names = [plain]
    if bad := [name for name in names if Path(name).name != name or not (folder / name).is_file()]:
        here = "; it has safetensors already" if any(folder.glob("*.safetensors")) else ""
        raise ModelError.of(where, f"no such pickled weights: {', '.join(bad[:5])}{here}", f"{plain} there")
    return [folder / name for name in names]


def _write(shards: list[Path], scratch: Path, out: Path) -> Converted:
    """Write each shard and, of several, their index."""
    place: dict[str, str] = {}
    size = 0
    for n, shard in enumerate(shards, 1):
        tensors = read_tensors(shard)
        name = f"{shard.stem.replace('pytorch_', '')}.safetensors"
        if len(shards) > 1:
            name = f"model-{n:05}-of-{len(shards):05}.safetensors"
        save_file(tensors, scratch / name, metadata={"format": "pt"})
        written = load_file(scratch / name)
        assert written.keys() == tensors.keys() and all(
            _same(written[key], tensor) for key, tensor in tensors.items()
        ), "what was written is what was read"
        place |= dict.fromkeys(tensors, name)
        size += sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if len(shards) > 1:
        index = {"metadata": {"total_size": size}, "weight_map": place}
        (scratch / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))
    return Converted(out, len(shards), len(place), size / 2**30)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a pickled checkpoint by name, each with memory of its own, as safetensors want it.

    Raises:
        ModelError: it holds anything but a table of tensors: nothing of that is run.
    """
    fix = "weights that were saved as tensors, or as safetensors"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old protocols: what cannot be read is an error
            found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except _NO_TENSORS as error:
        cause = " ".join(str(error).split()).partition("Please file")[0][:300]
        what = f"not read: it is damaged, or holds more than tensors ({cause})"
        raise ModelError.of(str(path), what, fix) from None
    if (
        not isinstance(found, Mapping)
        or not found
        or not all(isinstance(each, Tensor) for each in found.values())
    ):
        raise ModelError.of(str(path), "not read: no flat table of tensors", fix)
    seen: set[int] = set()
    tensors = {}
    for name, tensor in found.items():
        storage = tensor.untyped_storage()
        is_own = storage.data_ptr() not in seen and storage.nbytes() == tensor.numel() * tensor.element_size()
        seen.add(storage.data_ptr())
        tensors[str(name)] = (
            tensor.contiguous() if is_own else tensor.clone(memory_format=torch.contiguous_format)
        )
    return tensors


def _same(a: Tensor, b: Tensor) -> bool:
    """Return whether two tensors hold the same bytes: nan is nan."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return torch.equal(a.flatten().view(torch.uint8), b.flatten().view(torch.uint8))
