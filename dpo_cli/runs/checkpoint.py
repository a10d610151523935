"""Checkpoints: a folder that exists only when it is complete, and is trusted only when its digests are right.

A folder is written beside its place, every file is synced, the manifest with all digests comes last, and a rename commits it. What is
deleted is renamed first, so that a kill leaves either a whole checkpoint or something that no start looks at.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import xxhash
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dpo_cli.errors import Problem, StorageError

log = logging.getLogger("dpo_cli")

MANIFEST = "MANIFEST.json"
MODEL, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"
REFERENCE = "reference.safetensors"
DIGEST = "xxh3_128"
"""What tells a changed file; who wrote it, no digest tells. Ten times as fast as a cryptographic one, which took as long as the writing."""
_STEP, _TEMPORARY, _TRASH = "step-", ".tmp-step-", ".trash-"

Snapshot = Mapping[str, Mapping[str, Tensor]]
"""Name of a file -> its tensors on the host, apart from what training changes next."""


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint on disk."""

    path: Path
    step: int
    state: dict[str, Any]
    """What the loop saved beside weights and moments."""


def take_snapshot(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, dict[str, Tensor]]:
    """Copy trained weights (a tied one once) and moments to the host: training may go on while they are written.

    Frozen weights are those of the model that the run started from.
    """
    weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    moments = {
        f"{name}|{key}": value
        for name, weight in weights.items()
        for key, value in optimizer.state.get(weight, {}).items()
    }
    return {
        file: {name: value.detach().to("cpu", copy=True).contiguous() for name, value in tensors.items()}
        for file, tensors in ((MODEL, weights), (OPTIMIZER, moments))
    }


def estimated_bytes(model: nn.Module) -> int:
    """Return the size of a checkpoint: every trained weight and its two moments."""
    return sum(3 * weight.nbytes for weight in model.parameters() if weight.requires_grad)


def save_checkpoint(
    folder: Path, step: int, snapshot: Snapshot, state: Mapping[str, Any], keep_last: int
) -> Path:
    """Write a checkpoint, then delete the oldest beyond `keep_last`; return its path.

    Raises:
        StorageError: the disk is full or cannot be written; the earlier checkpoints are untouched.
    """
    final = folder / f"{_STEP}{step:08d}"
    temporary = folder / f"{_TEMPORARY}{step:08d}"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        if not folder.exists():
            folder.mkdir(mode=0o700, parents=True)
            _sync(folder.parent)
        temporary.mkdir(mode=0o700)
        _write(temporary, step, snapshot, state)
        if final.exists():
            _discard(final)
        temporary.rename(final)
        _sync(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise _not_written(final, snapshot, error) from error
    # Only up to this step: a damaged later one must not take the place of one that can be used.
    for old in [path for path in _committed(folder) if _step_of(path) <= step][:-keep_last]:
        _discard(old)
    return final


def latest_checkpoint(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """Return the newest checkpoint whose files have the digests of its manifest, and a line for each damaged one.

    Raises:
        StorageError: the folder is a link; what it leads to is not this run's to read or to delete.
    """
    if folder.is_symlink():
        raise StorageError.of(str(folder), "is a link, which is not followed", "a folder in its place")
    skipped: list[str] = []
    for path in reversed(_committed(folder)):
        damaged = _damage(path)
        if damaged is None:
            state = json.loads((path / STATE).read_text())
            return Checkpoint(path, int(state["step"]), state), skipped
        skipped.append(f"{path} is not used: {damaged}")
    return None, skipped


def load_checkpoint(checkpoint: Checkpoint, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put weights and moments back; call after the digests were checked (`latest_checkpoint`).

    Raises:
        StorageError: they are those of another model.
    """
    weights, moments = (load_extra(checkpoint, file) for file in (MODEL, OPTIMIZER))
    names = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    if {k: w.shape for k, w in names.items()} != {k: w.shape for k, w in weights.items()}:
        what = "holds the weights of another model than model.name is now"
        raise StorageError.of(
            str(checkpoint.path), what, "the model that the run began with, or train.resume=never"
        )
    with torch.no_grad():
        for name, weight in names.items():
            weight.copy_(weights[name])
    for name, weight in names.items():
        kept = {
            key.removeprefix(f"{name}|"): value
            for key, value in moments.items()
            if key.startswith(f"{name}|")
        }
        if kept:
            # The count of steps too: fused AdamW reads it where the weight lies.
            optimizer.state[weight] = {
                key: value.to(weight.device, copy=key == "step") for key, value in kept.items()
            }


def load_extra(checkpoint: Checkpoint, name: str) -> dict[str, Tensor]:
    """Return the tensors of one file of a checkpoint; none where it has no such file.

    Raises:
        StorageError: the file is no safetensors, though the manifest is right: nobody but an attacker or a bug of ours wrote that.
    """
    path = checkpoint.path / name
    try:
        return load_file(path) if path.exists() else {}
    except SafetensorError as error:
        what = f"is no safetensors file: {' '.join(str(error).split())}"
        raise StorageError.of(str(path), what, "remove this checkpoint, and ask who wrote it") from None


def clean(folder: Path) -> None:
    """Remove what a kill left half written or half deleted; call with the run's lock."""
    for prefix in (_TEMPORARY, _TRASH):
        for path in folder.glob(f"{prefix}*"):
            if not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)


def _write(temporary: Path, step: int, snapshot: Snapshot, state: Mapping[str, Any]) -> None:
    """Write all files, the manifest last; a file's digest is computed while the disk takes the next."""
    with ThreadPoolExecutor(1, "digest") as digests:
        promised = {}
        for name, tensors in snapshot.items():
            save_file(dict(tensors), temporary / name)
            promised[name] = digests.submit(_digest, temporary / name)
            _sync(temporary / name)
        (temporary / STATE).write_text(json.dumps({"step": step, **state}))
        promised[STATE] = digests.submit(_digest, temporary / STATE)
        _sync(temporary / STATE)
        files = {
            name: {"size": (temporary / name).stat().st_size, DIGEST: digest.result()}
            for name, digest in promised.items()
        }
    manifest: dict[str, Any] = {"format": 1, "step": step, "files": files}
    (temporary / MANIFEST).write_text(json.dumps({**manifest, "seal": _seal(manifest)}, indent=1))
    _sync(temporary / MANIFEST)
    _sync(temporary)


def _not_written(final: Path, snapshot: Snapshot, error: Exception) -> StorageError:
    needed = sum(tensor.nbytes for tensors in snapshot.values() for tensor in tensors.values()) / 2**30
    parent = next(path for path in final.parents if path.is_dir())
    free = shutil.disk_usage(parent).free / 2**30
    what = f"checkpoint not written ({needed:.2f} needed, {free:.2f} GiB free): {error}"
    return StorageError([Problem(str(final), what, "free some space, or train.output_dir=<another disk>")])


def _discard(path: Path) -> None:
    """Delete a checkpoint: renamed first, since half a checkpoint with a manifest would look like a damaged one."""
    trash = path.with_name(f"{_TRASH}{path.name}")
    try:
        shutil.rmtree(trash, ignore_errors=True)
        path.rename(trash)
        shutil.rmtree(trash)
    except OSError as error:
        log.warning("%s cannot be deleted (%s)", path, error.strerror)


def _committed(folder: Path) -> list[Path]:
    """Return the checkpoint folders by step, oldest first; what has no manifest is not a checkpoint, and a link is none of ours."""
    found = [path.parent for path in folder.glob(f"{_STEP}*/{MANIFEST}") if not path.parent.is_symlink()]
    return sorted(found, key=_step_of)


def _step_of(path: Path) -> int:
    """Return a checkpoint's step: as its manifest says, or where that cannot be read, its name."""
    try:
        return int(json.loads((path / MANIFEST).read_text())["step"])
    except (OSError, ValueError, KeyError, TypeError):
        digits = path.name.removeprefix(_STEP)
        return int(digits) if digits.isdecimal() else -1


def _damage(path: Path) -> str | None:
    """Return what is wrong with a checkpoint; None where every digest is right."""
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        if manifest.pop("seal") != _seal(manifest):
            return f"{MANIFEST} changed since it was written"
        files = manifest["files"]
        if not {MODEL, OPTIMIZER, STATE} <= files.keys() or any(Path(name).name != name for name in files):
            return f"{MANIFEST} does not name the files of a checkpoint"
        if links := [name for name in files if (path / name).is_symlink()]:
            return f"{', '.join(links)} is a link"
        wrong = [name for name in files if _digest(path / name) != files[name][DIGEST]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{type(error).__name__}: {error}"
    return f"{', '.join(wrong)} changed since it was written" if wrong else None


def _seal(manifest: Mapping[str, Any]) -> str:
    """Return the digest of a manifest's own content."""
    return hashlib.blake2b(json.dumps(manifest, sort_keys=True).encode(), digest_size=16).hexdigest()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, xxhash.xxh3_128).hexdigest()


def _sync(path: Path) -> None:
    """Flush a file or a folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
