"""The reference of a run: which model it is, and its log-probs from the run's pin, the store, or a forward now."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from dpo_cli import methods
from dpo_cli.data.dataset import Data
from dpo_cli.data.tokenize.tokenizer import load_tokenizer
from dpo_cli.engine.open_model import load_start, storage_of
from dpo_cli.engine.runtime import Runtime
from dpo_cli.engine.scoring import score_over_ranks
from dpo_cli.errors import ModelError
from dpo_cli.metrics.progress import progress
from dpo_cli.modeling.exactness import choose_path
from dpo_cli.modeling.hub import Start, model_start
from dpo_cli.modeling.precision import token_budget
from dpo_cli.modeling.scorer import Scorer
from dpo_cli.recipe.schema import Recipe
from dpo_cli.reference import spot_checks
from dpo_cli.reference.cached import ReferenceValues
from dpo_cli.reference.fill import Filled, fill
from dpo_cli.reference.fingerprint import namespace, remembered_digest
from dpo_cli.reference.known_values import Ledger, open_ledger
from dpo_cli.reference.permissions import open_store
from dpo_cli.reference.store import Store, default_root
from dpo_cli.types import TokenGroup

LABEL = "reference log-probs"


@dataclass(frozen=True)
class ReferenceModel:
    """A reference that is loaded and can score."""

    scorer: Scorer
    start: Start
    name: str
    """What the recipe calls it."""
    max_tokens: int
    """Of a batch."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """Log-probs of everything a run needs, and how they came; counts are completions."""

    values: ReferenceValues
    filled: Filled
    reused: int
    set_aside: int
    """Completions that stood in damaged segments."""
    store: Path
    """The namespace's folder."""
    namespace: str
    spot: spot_checks.Spot | None
    """None where nothing was reused, or the run had pinned all its values before."""

    def lines(self) -> list[str]:
        """Return where the values came from."""
        others = f", {self.filled.arrived:,} by other processes" if self.filled.arrived else ""
        lost = f", {self.set_aside:,} in damaged segments" if self.set_aside else ""
        summary = f"{LABEL}: {self.reused:,} found{lost}, {self.filled.scored:,} scored{others}; {self.store}"
        return [summary] if self.spot is None else [summary, str(self.spot)]


def to_score(recipe: Recipe, data: Data) -> list[TokenGroup]:
    """Return everything that a run needs a reference's value of, always in the same order; test rows are none of it."""
    groups = [*data.train, *data.mismatched, *data.eval]
    if "public" in methods.get(recipe.method.name).wants(recipe.method):
        groups += [group.public() for group in [*data.train, *data.eval]]
    return groups


def foreign_start(recipe: Recipe, policy: Start) -> Start | None:
    """Return a reference that is not the policy's start; None where it is, or where there is no reference.

    Raises:
        ModelError: there is no such model.
    """
    reference = recipe.reference
    needed = methods.get(recipe.method.name).needs_reference
    if reference.model is None or reference.source == "none" or not needed:
        return None
    found = model_start(reference.model, reference.revision, weights=True, key="reference.model")
    return None if found.folder.resolve() == policy.folder.resolve() else found


def load_reference(
    recipe: Recipe,
    runtime: Runtime,
    policy: Start,
    groups: Sequence[TokenGroup],
    tokenizer: PreTrainedTokenizerBase,
) -> ReferenceModel:
    """Load the reference as a model of its own.

    Args:
        recipe: the run's.
        runtime: its devices.
        policy: where the policy starts; the reference, where the recipe names no other.
        groups: the run's data, which decide how rows are laid out.
        tokenizer: the policy's.

    Raises:
        ModelError: it cannot be loaded, or its vocabulary gives ids another meaning.
    """
    foreign = foreign_start(recipe, policy)
    if foreign is not None:
        check_vocabulary(recipe, foreign.tokenizer, tokenizer)
    with progress("loading the reference"):
        storage = storage_of(recipe, runtime, policy) if foreign is None else None
        scorer = Scorer(load_start(foreign or policy, len(tokenizer), storage).to(runtime.device))
    is_fp32 = runtime.precision == "fp32"
    scorer.take(choose_path(scorer, groups, recipe.model.attention, runtime.autocast, is_fp32).path)
    wanted = recipe.train.max_tokens_per_micro_batch
    budget = token_budget(scorer.model, runtime.device, runtime.precision) if wanted == "auto" else wanted
    return ReferenceModel(scorer, foreign or policy, recipe.reference.model or recipe.model.name, int(budget))


def check_vocabulary(recipe: Recipe, folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Check that a reference's tokenizer gives ids the meaning that the policy's gives them.

    Raises:
        ModelError: it does not.
    """
    theirs = load_tokenizer(replace(recipe.model, name=str(folder), tokenizer=None))
    ours_digest, their_digest = (_vocabulary_digest(each) for each in (tokenizer, theirs))
    if ours_digest == their_digest:
        return
    what = (
        f"the reference's vocabulary differs from the policy's: {their_digest} ({len(theirs)} ids) and"
        f" {ours_digest} ({len(tokenizer)} ids)"
    )
    raise ModelError.of("reference.model", what, "a reference that shares the policy's tokenizer")


def prepare(
    recipe: Recipe,
    runtime: Runtime,
    model: ReferenceModel,
    groups: Sequence[TokenGroup],
    run_dir: Path | None,
) -> Prepared:
    """Return the values of all groups: pinned in the run folder, found in the store, or scored now.

    The main rank reads and writes; the others get what it read, so that all agree on what is missing.

    Args:
        recipe: the run's.
        runtime: its devices.
        model: the reference.
        groups: what needs a value.
        run_dir: the run that pins the values; None: none does.

    Raises:
        StorageError: the store cannot be trusted, read or written, or holds other values than the model gives.
    """
    precision = precision_of(recipe, runtime)
    ledger = Ledger()
    if runtime.is_main:
        ledger = open_ledger(groups, *_identity(model, precision), recipe.reference.store, run_dir)
    values = ReferenceValues(runtime.from_main(ledger.known))
    suspects = [groups[i] for i in runtime.from_main(ledger.to_check(groups, model.max_tokens))]
    checked = spot_check(runtime, model, suspects, values, precision, ledger.folder) if suspects else None
    waiting = values.missing(groups)
    if ledger.store is not None and waiting:
        ledger.store.check_writable()
    with progress(LABEL, len(waiting)) as advance:
        filled = fill(
            values,
            waiting,
            lambda chunk, tell: score_over_ranks(
                runtime, model.scorer, chunk, model.max_tokens, tell, precision
            ),
            ledger.store,
            runtime,
            advance,
        )
    if runtime.is_main and run_dir is not None:
        ledger.keep(values.of(groups), run_dir)
    lost = ledger.store.set_aside if ledger.store else 0
    return Prepared(values, filled, len(ledger.known), lost, ledger.folder, ledger.namespace, checked)


def precision_of(recipe: Recipe, runtime: Runtime) -> str:
    """Return the reference's arithmetic, `fp32` or `bf16`."""
    wanted = recipe.reference.precision
    return runtime.precision if wanted == "auto" else wanted


def spot_check(
    runtime: Runtime,
    model: ReferenceModel,
    groups: Sequence[TokenGroup],
    values: ReferenceValues,
    precision: str,
    store: Path,
) -> spot_checks.Spot:
    """Score groups again, on every rank, and compare with their values; see `spot_checks.check`."""
    return spot_checks.check(
        model.scorer, groups, values, precision, lambda: runtime.autocast(precision), str(store)
    )


def open_store_of(recipe: Recipe, runtime: Runtime, model: ReferenceModel) -> Store:
    """Open the store where a reference's values lie.

    Raises:
        StorageError: it cannot be trusted or made.
    """
    return open_store(recipe.reference.store, *_identity(model, precision_of(recipe, runtime)))


def _identity(model: ReferenceModel, precision: str) -> tuple[str, dict[str, str]]:
    """Return a reference's namespace, and what it is in words."""
    start = model.start
    folders = [start.base] if start.adapter is None else [start.base, start.adapter]
    weights = remembered_digest(model.scorer.model, folders, default_root() / "digests.json")
    layout = model.scorer.path
    about = {
        "model": model.name,
        "precision": precision,
        "layout": layout,
        "made": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    return namespace(model.scorer.model, precision, layout, weights), about


def _vocabulary_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    words = json.dumps(sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]))
    return hashlib.blake2b(words.encode(), digest_size=6).hexdigest()
