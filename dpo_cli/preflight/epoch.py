"""What an epoch of a recipe holds, estimated from a sample of its rows."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dpo_cli import methods
from dpo_cli.data.dataset import DataRow
from dpo_cli.data.load import load_data
from dpo_cli.data.sources.files import read_source
from dpo_cli.data.sources.placed_rows import Problems
from dpo_cli.data.tokenize.tokenizer import load_tokenizer
from dpo_cli.modeling.hub import model_start

if TYPE_CHECKING:
    from dpo_cli.recipe.schema import Recipe, Source

SAMPLE = 300
"""Rows of each source that are encoded."""


@dataclass(frozen=True)
class Epoch:
    """Sums over the training examples of one epoch."""

    examples: int
    completions: int
    tokens: int
    """Computed: a shared prompt once where rows are packed."""
    scored: int
    """Of them, those that reach the head."""
    gathered: int
    """Keys that attention gathers: a shared prompt once for each answer."""
    seen: float
    """Pairs of a query and a key that a causal mask lets through."""
    longest: int
    """Tokens of the longest example."""
    is_estimate: bool
    """Whether rows were left out of the sample."""


def has_local_rows(recipe: Recipe) -> bool:
    """Return whether all training rows are in files here: the loader makes their paths absolute."""
    return all(Path(source.path).is_absolute() for source in recipe.data.train)


def epoch_of(recipe: Recipe) -> Epoch:
    """Encode at most `SAMPLE` rows of each training source and scale the sums up by the rows of its files. Writes nothing.

    Raises:
        UserError: data, tokenizer or template that cannot be used.
    """
    method = methods.get(recipe.method.name)
    start = model_start(recipe.model.name, recipe.model.revision, weights=False)
    tokenizer = load_tokenizer(replace(recipe.model, name=str(start.tokenizer)))
    sources = [replace(each, limit=min(each.limit or SAMPLE, SAMPLE)) for each in recipe.data.train]
    split = replace(recipe.data.split, eval=0.0) if recipe.data.eval else recipe.data.split
    with tempfile.TemporaryDirectory() as scratch:
        sampled = replace(recipe.data, train=sources, eval=[], split=split, drop=None, cache=scratch)
        rows = load_data(sampled, tokenizer, method.needs(recipe.method)).train_rows
    every, taken = _counts(recipe.data.train), _counts(sources)
    is_packed = recipe.model.attention != "padded"
    return _summed(rows, {path: every[path] / taken[path] for path in taken}, is_packed)


def _counts(sources: Sequence[Source]) -> Counter[str]:
    """Return the rows of each path, not parsed."""
    found: Counter[str] = Counter()
    for number, source in enumerate(sources):
        found[source.path] += sum(1 for _ in read_source(source, f"data.train[{number}]", Problems()))
    return found


def _summed(rows: Sequence[DataRow], scale: dict[str, float], is_packed: bool) -> Epoch:
    examples = completions = tokens = scored = gathered = seen = 0.0
    for row in rows:
        group, factor = row.group, scale[row.source]
        n_prompt, lengths = len(group.prompt), [len(ids) for ids in group.completions]
        prompts = 1 if is_packed else len(lengths)
        examples += factor
        completions += factor * len(lengths)
        tokens += factor * (prompts * n_prompt + sum(lengths))
        scored += factor * sum(group.scored)
        gathered += factor * group.n_row_tokens
        seen += factor * (prompts * n_prompt**2 / 2 + sum(n * n_prompt + n * n / 2 for n in lengths))
    longest = max(row.group.n_tokens if is_packed else row.group.n_row_tokens for row in rows)
    return Epoch(
        round(examples),
        round(completions),
        round(tokens),
        round(scored),
        round(gathered),
        seen,
        longest,
        any(factor != 1 for factor in scale.values()),
    )
