"""What each logged name means, in a paragraph: the table is `glossary.yaml`, which a test holds against what runs really log."""

from __future__ import annotations

import difflib
import functools
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Metric:
    """One name."""

    text: str
    unit: str
    range: str
    good: str
    """What a healthy run shows."""


PARTS = {
    "train/": "In training: the mean over the pairs (or completions) since the last log, on all ranks.",
    "eval/": "Held out: over every held-out row, each once.",
}


@functools.cache
def metrics() -> dict[str, Metric]:
    """Return the table: name without its `train/` or `eval/` -> what it means."""
    import yaml

    table = yaml.safe_load((Path(__file__).parent / "glossary.yaml").read_text(encoding="utf-8"))
    return {name: Metric(**facts) for name, facts in table.items()}


def explain(name: str) -> str | None:
    """Return what a logged name means, with or without its `train/` or `eval/`; of a group (`rewards`) all names; None where there is none such."""
    part, bare = _split(name)
    if bare in metrics():
        return _described(name, metrics()[bare], PARTS.get(part, ""))
    group = (
        [each for each in metrics() if each.startswith(f"{bare}/")] if bare != "metrics" else list(metrics())
    )
    return "\n".join(_described(each, metrics()[each], "") for each in group) or None


def facts(name: str) -> dict[str, Any] | None:
    """Return what is known of a logged name as plain values; None where there is none such."""
    _, bare = _split(name)
    return {"name": name, **asdict(metrics()[bare])} if bare in metrics() else None


def near(name: str) -> list[str]:
    """Return names that are written much alike."""
    return difflib.get_close_matches(_split(name)[1], metrics(), 1, cutoff=0.75)


def _split(name: str) -> tuple[str, str]:
    part = next((part for part in PARTS if name.startswith(part)), "")
    return part, name.removeprefix(part)


def _described(name: str, metric: Metric, where: str) -> str:
    text = f"{metric.text} {where}".strip()
    return f"{name}: {metric.unit}; {metric.range}\n    {text}\n    good: {metric.good}"
