"""`dpo precompute-ref`: the reference's log-probs of a recipe's data into the store, and nothing else."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dpo_cli import methods
from dpo_cli.data.dataset import Data, DataRow
from dpo_cli.data.load import load_data
from dpo_cli.data.tokenize.tokenizer import load_tokenizer
from dpo_cli.engine.open_model import policy_start
from dpo_cli.engine.runtime import Runtime
from dpo_cli.metrics.progress import duration
from dpo_cli.recipe.load import Loaded
from dpo_cli.recipe.schema import Recipe
from dpo_cli.reference.cached import ReferenceValues
from dpo_cli.reference.provide import (
    Prepared,
    ReferenceModel,
    load_reference,
    precision_of,
    prepare,
    spot_check,
)
from dpo_cli.reference.sanity import ReferenceFacts, facts_of
from dpo_cli.reference.spot_checks import Spot, choose
from dpo_cli.types import TokenGroup


@dataclass(frozen=True, eq=False)
class Precomputed:
    """The store after it was filled for a recipe."""

    prepared: Prepared
    spot: Spot
    facts: ReferenceFacts | None
    weights_gib: float
    """What the reference's weights would take beside the policy's."""

    def as_dict(self) -> dict[str, Any]:
        """Return the figures for `--json`; counts are completions."""
        prepared = self.prepared
        return {
            "computed": prepared.filled.scored,
            "reused": prepared.reused + prepared.filled.arrived,
            "set_aside": prepared.set_aside,
            "seconds": round(prepared.filled.seconds, 3),
            "store": str(prepared.store),
            "namespace": prepared.namespace,
            "max_abs_diff": self.spot.max_abs_diff,
        }

    def lines(self) -> list[str]:
        """Return what was done, what the reference thinks, and what it saves."""
        filled = self.prepared.filled
        saved = f"{self.weights_gib:.2f} GiB of weights beside the policy's"
        if filled.scored:
            share = filled.scored / (self.prepared.reused + filled.scored + filled.arrived)
            saved = f"about {duration(filled.seconds / share)} a pass over these rows, and {saved}"
        facts = self.facts.lines() if self.facts else []
        return [*self.prepared.lines()[:1], str(self.spot), *facts, f"saves in training: {saved}"]


@dataclass(frozen=True, eq=False)
class Session:
    """A recipe's data and its reference, loaded."""

    recipe: Recipe
    runtime: Runtime
    data: Data
    model: ReferenceModel

    @property
    def rows(self) -> list[DataRow]:
        """All rows: training, evaluation and test."""
        return [*self.data.train_rows, *self.data.eval_rows, *self.data.test_rows]

    def check(self, groups: Sequence[TokenGroup], values: ReferenceValues, store: Path) -> Spot:
        """Score a few of the groups again; the same ones on every rank."""
        chosen = choose(range(len(groups)), groups, set(), self.model.max_tokens, random.Random())
        again = [groups[i] for i in self.runtime.from_main(chosen)]
        precision = precision_of(self.recipe, self.runtime)
        return spot_check(self.runtime, self.model, again, values, precision, store)


@contextmanager
def open_session(loaded: Loaded) -> Iterator[Session]:
    """Load a recipe's data and its reference, which its method must have: the commands check that as they load it.

    Raises:
        UserError: whatever is wrong with data or model.
    """
    recipe = loaded.recipe
    assert methods.get(recipe.method.name).needs_reference, "a method without a reference has no session"
    runtime = Runtime(recipe.train.precision)
    try:
        start = policy_start(recipe, weights=True)
        tokenizer = load_tokenizer(replace(recipe.model, name=str(start.tokenizer)))
        data = load_data(recipe.data, tokenizer, methods.get(recipe.method.name).needs(recipe.method))
        model = load_reference(recipe, runtime, start, data.train, tokenizer)
        yield Session(recipe, runtime, data, model)
    finally:
        runtime.close()


def precompute(session: Session) -> Precomputed:
    """Fill the store with the reference's log-probs of all rows.

    Raises:
        StorageError: the store cannot be trusted, read or written, or holds other values than the model gives.
    """
    groups = [row.group for row in session.rows]
    if "public" in methods.get(session.recipe.method.name).wants(session.recipe.method):
        groups += [group.public() for group in groups]
    groups += session.data.mismatched
    prepared = prepare(session.recipe, session.runtime, session.model, groups, None)
    # All new: other batches must give the same values.
    checked = prepared.spot or session.check(groups, prepared.values, prepared.store)
    n_bytes = sum(weight.numel() * weight.element_size() for weight in session.model.scorer.parameters())
    return Precomputed(prepared, checked, facts_of(groups, prepared.values), n_bytes / 2**30)
