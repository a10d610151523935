"""A whole recipe on a tiny model, for tests that run `dpo train`."""

from __future__ import annotations

from pathlib import Path

from tests.fakes import pair_rows, write_jsonl, write_model

STEPS = 8

TEXT = """\
model: {name: ./tiny}
data: {train: [{path: rows.jsonl}], split: {eval: 0.25}}
optim: {lr: 1e-3}
train: {batch_size: 8, max_steps: 8, precision: fp32, eval_every: 0, save_every: 4, samples: 1, epochs: 9}
log: {every: 2}
"""


def write_recipe(folder: Path) -> Path:
    """Write a tiny model, 40 pairs and a recipe of eight steps that only evaluates at the end; give the recipe."""
    write_model(folder / "tiny")
    write_jsonl(folder / "rows.jsonl", pair_rows(40))
    path = folder / "tiny.yaml"
    path.write_text(TEXT)
    return path
