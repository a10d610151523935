"""From a checked recipe to a run that can start: data, policy, reference, plan. Everything slow shows its progress."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from dpo_cli import methods
from dpo_cli.data.load import Data, load_data
from dpo_cli.data.plan import total_steps
from dpo_cli.data.tokenizer import load_tokenizer
from dpo_cli.errors import ModelError
from dpo_cli.evaluate.pairs import Evaluation, evaluate_pairs
from dpo_cli.metrics import terminal
from dpo_cli.metrics.progress import progress
from dpo_cli.metrics.terminal import say
from dpo_cli.modeling.batching import Sums, score_groups
from dpo_cli.modeling.exactness import choose_path
from dpo_cli.modeling.hub import model_folder
from dpo_cli.modeling.load import inspect_folder, load_model
from dpo_cli.modeling.logprobs import Path as RowPath
from dpo_cli.modeling.logprobs import Scorer
from dpo_cli.modeling.precision import token_budget
from dpo_cli.recipe.schema import Recipe
from dpo_cli.reference.live import LiveReference
from dpo_cli.reference.store import Store, default_root, namespace
from dpo_cli.reference.values import ReferenceValues
from dpo_cli.train.loop import ReferenceSource
from dpo_cli.train.runtime import Runtime
from dpo_cli.types import TokenGroup

PIN = "reference"
CHOICES = "choices.json"


@dataclass(frozen=True)
class Choices:
    """What a run chose by looking at the machine and the model; fixed at its first start, so that a resumed run repeats it."""

    path: RowPath
    precision: str
    token_budget: int
    threads: int
    note: str
    """Why this path, for the user."""


@dataclass(eq=False)
class Parts:
    """What a run is made of, before its optimizer exists."""

    recipe: Recipe
    runtime: Runtime
    run_dir: Path
    folder: Path
    """The policy's model folder."""
    tokenizer: PreTrainedTokenizerBase
    data: Data
    scorer: Scorer
    choices: Choices
    reference: ReferenceSource | None
    n_steps: int

    def evaluate(self, scorer: Scorer | None = None) -> Evaluation:
        """Evaluate the held-out rows."""
        groups = self.data.eval
        budget = self.choices.token_budget
        policy = score_over_ranks(self.runtime, scorer or self.scorer, groups, budget, "evaluation")
        reference = None if self.reference is None else self.reference.lookup(groups)
        clusters = [row.prompt_key for row in self.data.eval_rows]
        return evaluate_pairs(
            groups, clusters, policy, reference, methods.get(self.recipe.method.name), self.recipe.method
        )


def build(recipe: Recipe, runtime: Runtime, run_dir: Path) -> Parts:
    """Load everything a run needs, cheapest checks first: data before weights.

    Raises:
        UserError: whatever cannot work, before the first step.
    """
    folder = model_folder(recipe.model.name, recipe.model.revision, weights=True)
    inspect_folder(folder)
    tokenizer = load_tokenizer(replace(recipe.model, name=str(folder)))
    data = load_data(recipe.data, tokenizer)
    n_steps = total_steps(
        len(data.train), recipe.train.batch_size, recipe.train.epochs, recipe.train.max_steps
    )
    other = recipe.reference.model is not None and recipe.reference.source != "none"
    # A reference of its own is scored and let go before the policy is loaded: never two models in memory.
    pinned = _foreign_reference(recipe, runtime, run_dir, data, tokenizer) if other else None
    with progress("loading the model"):
        model = load_model(folder, len(tokenizer), dropout=recipe.train.dropout)
    scorer = Scorer(model.to(runtime.device))
    choices = _choose(recipe, runtime, run_dir, scorer, data)
    parts = Parts(recipe, runtime, run_dir, folder, tokenizer, data, scorer, choices, pinned, n_steps)
    if not other:
        parts.reference = _own_reference(parts)
    return parts


def score_over_ranks(
    runtime: Runtime,
    scorer: Scorer,
    groups: Sequence[TokenGroup],
    max_tokens: int,
    label: str,
    precision: str = "auto",
) -> list[Sums]:
    """Score each group on one rank; give all results, in the groups' order, on every rank."""
    mine = groups[runtime.rank :: runtime.world]
    with progress(label, len(mine)) as advance:
        own = score_groups(scorer, mine, max_tokens, lambda: runtime.autocast(precision), advance)
    gathered = runtime.gather(list(zip(range(runtime.rank, len(groups), runtime.world), own, strict=True)))
    return [sums for _, sums in sorted(gathered, key=lambda item: item[0])]


def lengths_of(groups: Sequence[TokenGroup], path: RowPath) -> list[int]:
    """Give the tokens that each group costs: with prompts shared, or a prompt per completion."""
    if path == "packed":
        return [group.n_tokens for group in groups]
    return [sum(len(group.prompt) + len(ids) for ids in group.completions) for group in groups]


def _choose(recipe: Recipe, runtime: Runtime, run_dir: Path, scorer: Scorer, data: Data) -> Choices:
    """Choose path and token budget, or repeat what this run chose at its first start."""
    kept = run_dir / CHOICES
    if kept.exists():
        choices = Choices(**json.loads(kept.read_text()))
        scorer.take(choices.path)
        runtime.precision = choices.precision
        torch.set_num_threads(choices.threads)
        return choices
    found = choose_path(
        scorer, data.train, recipe.model.attention, runtime.autocast, runtime.precision == "fp32"
    )
    wanted = recipe.train.max_tokens_per_micro_batch
    budget = token_budget(scorer.model, runtime.device, runtime.precision) if wanted == "auto" else wanted
    choices = runtime.from_main(
        Choices(found.path, runtime.precision, int(budget), torch.get_num_threads(), found.reason)
    )
    scorer.take(choices.path)
    if runtime.is_main:
        kept.write_text(json.dumps(asdict(choices), indent=1) + "\n")
    return choices


def _own_reference(parts: Parts) -> ReferenceSource | None:
    """Give the reference that is the policy before its first step, scored with the policy's own weights."""
    source, wanted = parts.recipe.reference.source, parts.recipe.reference.precision
    if source == "none" or not methods.get(parts.recipe.method.name).needs_reference:
        return None
    if source == "live":
        model = load_model(parts.folder, len(parts.tokenizer)).to(parts.runtime.device)
        return LiveReference(Scorer(model, parts.choices.path), lambda: parts.runtime.autocast(wanted))
    budget = parts.choices.token_budget
    return _filled(parts.recipe, parts.runtime, parts.run_dir, parts.data, parts.scorer, budget)


def _foreign_reference(
    recipe: Recipe, runtime: Runtime, run_dir: Path, data: Data, tokenizer: PreTrainedTokenizerBase
) -> ReferenceSource:
    """Give the reference that is another model.

    Raises:
        ModelError: its tokenizer gives other ids.
    """
    assert recipe.reference.model is not None
    folder = model_folder(recipe.reference.model, None, weights=True, key="reference.model")
    theirs = load_tokenizer(replace(recipe.model, name=str(folder), tokenizer=None))
    if theirs.get_vocab() != tokenizer.get_vocab():
        what = (
            f"the reference's vocabulary differs from the policy's ({len(theirs)} and {len(tokenizer)} ids)"
        )
        raise ModelError.of("reference.model", what, "a reference that shares the policy's tokenizer")
    with progress("loading the reference"):
        scorer = Scorer(load_model(folder, len(tokenizer)).to(runtime.device))
    found = choose_path(
        scorer, data.train, recipe.model.attention, runtime.autocast, runtime.precision == "fp32"
    )
    scorer.take(found.path)
    if recipe.reference.source == "live":
        return LiveReference(scorer, lambda: runtime.autocast(recipe.reference.precision))
    budget = token_budget(scorer.model, runtime.device, runtime.precision)
    return _filled(recipe, runtime, run_dir, data, scorer, budget)


def _filled(
    recipe: Recipe, runtime: Runtime, run_dir: Path, data: Data, scorer: Scorer, max_tokens: int
) -> ReferenceValues:
    """Give the values of all rows: pinned in the run folder, found in the store, or scored now.

    The main process reads and writes; the others get what it read, so that all agree on what is missing.
    """
    groups = [*data.train, *data.eval]
    label, wanted = "reference log-probs", recipe.reference.precision
    precision = runtime.precision if wanted == "auto" else wanted
    known: dict[str, tuple[float, int]] = {}
    pinned: dict[str, tuple[float, int]] = {}
    if runtime.is_main:
        name = namespace(scorer.model, precision, scorer.path)
        model = recipe.reference.model or recipe.model.name
        about = {"model": model, "precision": precision, "layout": scorer.path}
        store = Store(Path(recipe.reference.store or default_root()), name, about)
        pin = Store(run_dir / PIN, name, about)
        pinned = pin.read()
        needed = {key for group in groups for key in group.keys}
        known = {key: value for key, value in {**store.read(), **pinned}.items() if key in needed}
    values = ReferenceValues(runtime.from_main(known))
    scored = values.fill(
        groups,
        lambda missing: score_over_ranks(runtime, scorer, missing, max_tokens, label, precision),
        store.write if runtime.is_main else None,
    )
    if runtime.is_main:
        new = {key: value for key, value in values.of(groups).items() if key not in pinned}
        if new:
            pin.write(new)
        say(terminal.console(), f"{label}: {len(known):,} found, {scored:,} scored; {store.folder}")
    return values
