"""Checkpoints: a folder that exists only when it is complete, and is trusted only when its digests are right.

A folder is written beside its place, every file is synced, the manifest with all digests comes last, and a rename commits it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dpo_cli.errors import StorageError

MANIFEST = "MANIFEST.json"
MODEL, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"
_STEP = "step-"


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint on disk."""

    path: Path
    step: int
    state: dict[str, Any]
    """What the loop saved beside weights and moments."""


def save_checkpoint(
    folder: Path,
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
    keep_last: int,
) -> Path:
    """Write a checkpoint, then delete the oldest beyond `keep_last`; give its path.

    Raises:
        StorageError: the disk is full or cannot be written; the earlier checkpoints are untouched.
    """
    final = folder / f"{_STEP}{step:08d}"
    temporary = folder / f".tmp-{final.name}"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(mode=0o700, parents=True)
        save_file(_weights(model), temporary / MODEL)
        save_file(_moments(model, optimizer), temporary / OPTIMIZER)
        (temporary / STATE).write_text(json.dumps({"step": step, **state}))
        files = {name: _sealed(temporary / name) for name in (MODEL, OPTIMIZER, STATE)}
        (temporary / MANIFEST).write_text(json.dumps({"format": 1, "step": step, "files": files}))
        _sync(temporary / MANIFEST)
        _sync(temporary)
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
        _sync(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        free = shutil.disk_usage(folder).free / 2**30 if folder.exists() else 0.0
        fix = "free some space, or train.output_dir=<another disk>"
        raise StorageError.of(
            str(final), f"checkpoint not written ({free:.1f} GiB free): {error}", fix
        ) from error
    # Only up to this step: a damaged later one must not take the place of one that can be used.
    for old in [path for path in _committed(folder) if path.name <= final.name][:-keep_last]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def latest_checkpoint(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """Give the newest checkpoint whose files have the digests of its manifest, and a line for each damaged one."""
    told: list[str] = []
    for path in reversed(_committed(folder)):
        damaged = _damage(path)
        if damaged is None:
            state = json.loads((path / STATE).read_text())
            return Checkpoint(path, int(state["step"]), state), told
        told.append(f"{path} is not used: {damaged}")
    return None, told


def load_checkpoint(checkpoint: Checkpoint, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put weights and moments back; call after the digests were checked (`latest_checkpoint`)."""
    weights = load_file(checkpoint.path / MODEL)
    names = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    with torch.no_grad():
        for name, weight in names.items():
            weight.copy_(weights[name])
    moments = load_file(checkpoint.path / OPTIMIZER)
    for name, weight in names.items():
        kept = {
            key.removeprefix(f"{name}|"): value
            for key, value in moments.items()
            if key.startswith(f"{name}|")
        }
        if kept:
            optimizer.state[weight] = {
                key: value.clone() if key == "step" else value.to(weight.device)
                for key, value in kept.items()
            }


def _weights(model: nn.Module) -> dict[str, Tensor]:
    """Give the trained parameters; frozen ones are those of the model that the run started from. A tied weight is listed once."""
    return {
        name: weight.detach().cpu().contiguous()
        for name, weight in model.named_parameters()
        if weight.requires_grad
    }


def _moments(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{name}|{key}": value.detach().cpu().contiguous()
        for name, weight in model.named_parameters()
        for key, value in optimizer.state.get(weight, {}).items()
    }


def _committed(folder: Path) -> list[Path]:
    """Give the checkpoint folders by step, oldest first; what has no manifest is not a checkpoint."""
    return sorted(path.parent for path in folder.glob(f"{_STEP}*/{MANIFEST}"))


def _damage(path: Path) -> str | None:
    """Say what is wrong with a checkpoint; None where every digest is right."""
    try:
        files = json.loads((path / MANIFEST).read_text())["files"]
        wrong = [name for name in (MODEL, OPTIMIZER, STATE) if _digest(path / name) != files[name]["blake2b"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{type(error).__name__}: {error}"
    return f"{', '.join(wrong)} changed since it was written" if wrong else None


def _sealed(path: Path) -> dict[str, Any]:
    _sync(path)
    return {"size": path.stat().st_size, "blake2b": _digest(path)}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def _sync(path: Path) -> None:
    """Flush a file or a folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
