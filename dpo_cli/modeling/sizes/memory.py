"""How large a model is and what memory is free, before a weight is loaded. No torch: `dpo recipes ls` asks too."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from dpo_cli import methods
from dpo_cli.methods._memory import Need, Size, moment_bytes_of
from dpo_cli.modeling.hub import local_folder
from dpo_cli.recipe.schema import Recipe

_IN_NAME = re.compile(r"(?:(\d+)x)?(\d+(?:\.\d+)?)([mb])(?![a-z0-9])", re.IGNORECASE)
_UNIT = {"m": 10**6, "b": 10**9}


def need_of(recipe: Recipe, size: Size) -> Need:
    """Return what training a model of that size needs by a recipe's method, adapter and reference."""
    is_live = recipe.reference.source == "live" and methods.get(recipe.method.name).needs_reference
    adapter = recipe.model.adapter
    weight_bytes = 2 if recipe.train.weights == "bf16" else 4
    state = 2 * weight_bytes + moment_bytes_of(recipe.optim.name, weight_bytes)
    return Need(size, is_live, None if adapter is None else adapter.rank, state)


def size_of(name: str) -> Size | None:
    """Return the size of a model without any network: from the headers of its weights, else from its name ("llama-7b"), else None.

    Args:
        name: a folder, a run's folder, or a hub id.
    """
    folder = local_folder(name)
    counted = None if folder is None else stored_size(folder)
    if counted is not None:
        return counted
    # `runs/llama7b_sft/model` is named one level up
    for part in Path(name).parts[:-3:-1]:
        said = [
            int(int(n or 1) * float(count) * _UNIT[unit.lower()]) for n, count, unit in _IN_NAME.findall(part)
        ]
        if said:
            return Size(max(said), False)  # the largest: "30B-A3B" has 30, "7B-1M" is about something else
    return None


def stored_size(folder: Path) -> Size | None:
    """Count the parameters in a folder's weight files by their headers; None where a file is missing or damaged."""
    from safetensors import SafetensorError, safe_open

    total = 0
    try:
        for path in _weight_files(folder):
            with safe_open(path, framework="np") as file:
                total += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 - no mapping
    except (OSError, ValueError, SafetensorError):
        return None
    return Size(total, is_exact=True) if total else None


def _weight_files(folder: Path) -> list[Path]:
    """Return the files that transformers would load: some folders hold the weights a second time under another name."""
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.is_file() or not index.is_file():
        return [whole]
    stated = json.loads(index.read_text())
    shards = stated.get("weight_map") if isinstance(stated, dict) else None
    if not isinstance(shards, dict):
        raise ValueError("no weight_map")
    return [folder / str(name) for name in sorted(set(shards.values()))]


def free_ram(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the bytes that this process could still take: what the machine has left, and what its container or batch job allows.

    Args:
        proc: where Linux tells of memory and processes; without it all of the machine's memory counts as free.
        cgroups: where it tells of control groups (version 2).
    """
    left = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    with suppress(OSError):
        left += [kib * 1024 for kib in _entries(proc / "meminfo", "MemAvailable:")]
        for group in re.findall(r"^0::/(.*)$", (proc / "self" / "cgroup").read_text(), re.MULTILINE):
            left += _allowances(cgroups, Path(group))
    return min(left)


def _allowances(cgroups: Path, group: Path) -> Iterator[int]:
    """Yield what a control group and each one around it has left; cached pages of files can be dropped, so they count as free."""
    for folder in (cgroups / each for each in (group, *group.parents)):
        with suppress(OSError, ValueError):  # the limit is "max", or the group has none
            limit, used = (int((folder / f"memory.{name}").read_text()) for name in ("max", "current"))
            yield max(0, limit - used + sum(_entries(folder / "memory.stat", "inactive_file")))


def _entries(path: Path, name: str) -> list[int]:
    """Return the numbers that stand behind a name in the kernel's lists."""
    return [int(line.split()[1]) for line in path.read_text().splitlines() if line.split()[:1] == [name]]
