"""From a checked recipe to a run that can start: data, policy, reference, plan. Everything slow shows its progress."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from dpo_cli import methods
from dpo_cli.data.dataset import Data
from dpo_cli.data.load import data_digest, load_data
from dpo_cli.data.tokenize.tokenizer import load_tokenizer
from dpo_cli.engine.batching import Sums
from dpo_cli.engine.open_model import load_policy, load_start, policy_start, storage_of
from dpo_cli.engine.rank_agreement import agree
from dpo_cli.engine.runtime import Runtime
from dpo_cli.engine.scoring import log_probs_over_ranks, score_over_ranks
from dpo_cli.evaluate.pairs.held_out import Evaluation, evaluate_pairs
from dpo_cli.evaluate.pairs.held_out_unpaired import evaluate_unpaired
from dpo_cli.methods._base import TIE_NATS
from dpo_cli.metrics import terminal
from dpo_cli.metrics.progress import progress
from dpo_cli.metrics.terminal import say
from dpo_cli.modeling.hub import Start
from dpo_cli.modeling.limits import check_limits
from dpo_cli.modeling.router_loss import router_of
from dpo_cli.modeling.scorer import Scorer
from dpo_cli.recipe.schema import Recipe
from dpo_cli.reference.cached import ReferenceValues
from dpo_cli.reference.live import LiveReference
from dpo_cli.reference.provide import ReferenceModel, foreign_start, load_reference, prepare, to_score
from dpo_cli.reference.sanity import facts_of
from dpo_cli.reference.source import ReferenceSource, reference_of
from dpo_cli.runs.folder import CHOICES, DATA
from dpo_cli.train.choices import Choices, choose, keep
from dpo_cli.train.step_plan import total_steps
from dpo_cli.types import LogProbs, TokenGroup


@dataclass(eq=False)
class Parts:
    """What a run is made of, before its optimizer exists."""

    recipe: Recipe
    runtime: Runtime
    run_dir: Path
    start: Start
    """The model that the policy starts from."""
    tokenizer: PreTrainedTokenizerBase
    data: Data
    scorer: Scorer
    choices: Choices
    reference: ReferenceSource | None
    n_steps: int
    has_own_reference: bool
    """Whether the reference is another model than the policy's start."""

    def evaluate(self, scorer: Scorer | None = None) -> Evaluation:
        """Evaluate the held-out rows."""
        return self.judged(*self.scored(self.data.eval, scorer or self.scorer, "evaluation"))

    def judged(self, policy: LogProbs, reference: LogProbs | None) -> Evaluation:
        """Evaluate the held-out rows by their log-probs, as `scored` gives them."""
        groups, method, config = self.data.eval, methods.get(self.recipe.method.name), self.recipe.method
        clusters = [row.prompt_key for row in self.data.eval_rows]
        if len(groups[0].completions) == 1:
            return evaluate_unpaired(groups, clusters, policy, reference, method, config)
        tie_nats = TIE_NATS[self.runtime.precision]
        return evaluate_pairs(groups, clusters, policy, reference, method, config, tie_nats)

    def scored(
        self, groups: Sequence[TokenGroup], scorer: Scorer, doing: str
    ) -> tuple[LogProbs, LogProbs | None]:
        """Return the log-probs of groups, (N,) on the CPU, under a scorer and under the reference, if there is one."""
        want = methods.get(self.recipe.method.name).wants(self.recipe.method)
        with progress(doing, len(groups) * (1 + len(want - {"confidence"}))) as advance:
            policy = log_probs_over_ranks(self._score(scorer, advance), groups, want)
        return policy, reference_of(self.reference, groups, want)

    def _score(self, scorer: Scorer, advance: Callable[[int], None]) -> Callable[..., list[Sums]]:
        budget = self.choices.token_budget
        return lambda groups: score_over_ranks(self.runtime, scorer, groups, budget, advance)


def build(recipe: Recipe, runtime: Runtime, run_dir: Path, chosen: Mapping[str, Any] | None = None) -> Parts:
    """Load everything a run needs, cheapest checks first: data before weights.

    Args:
        recipe: the checked recipe.
        runtime: its devices.
        run_dir: the run's folder.
        chosen: the `Choices` that a checkpoint holds; None: those of the run's folder, or new ones.

    Raises:
        UserError: whatever cannot work, before the first step.
    """
    start = policy_start(recipe, weights=True)
    tokenizer = load_tokenizer(replace(recipe.model, name=str(start.tokenizer)))
    method = methods.get(recipe.method.name)
    data = load_data(recipe.data, tokenizer, method.needs(recipe.method))
    data.report.advice = check_limits(start.base, len(tokenizer), [*data.train, *data.eval])
    agree(runtime, {"digest of the encoded rows": data_digest([*data.train, *data.eval])})
    if runtime.is_main:
        keep(run_dir, DATA, data.report.as_dict())
    n_steps = total_steps(
        len(data.train), recipe.train.batch_size, recipe.train.epochs, recipe.train.max_steps
    )
    other = foreign_start(recipe, start)
    # A reference of its own is scored and let go before the policy is loaded: never two models in memory.
    foreign = _foreign_reference(recipe, runtime, run_dir, start, data, tokenizer) if other else None
    with progress("loading the model"):
        model = load_policy(recipe, runtime, start, tokenizer, data)
    scorer = Scorer(model.to(runtime.device))
    scorer.router = router_of(model, recipe.model.router_loss)
    choices = choose(recipe, runtime, run_dir, scorer, data, n_steps, chosen)
    parts = Parts(
        recipe, runtime, run_dir, start, tokenizer, data, scorer, choices, foreign, n_steps, other is not None
    )
    if other is None:
        parts.reference = _reference(parts)
    return parts


def keep_budget(parts: Parts, budget: int) -> None:
    """Make a token budget the run's own: a resumed run takes it too."""
    parts.choices = replace(parts.choices, token_budget=budget)
    if parts.runtime.is_main:
        keep(parts.run_dir, CHOICES, asdict(parts.choices))


def _reference(parts: Parts) -> ReferenceSource | None:
    """Return the reference that is the policy before its first step, scored with the policy's own weights."""
    recipe, runtime = parts.recipe, parts.runtime
    if recipe.reference.source == "none" or not methods.get(recipe.method.name).needs_reference:
        return None
    if recipe.reference.source == "live":
        storage = storage_of(recipe, runtime, parts.start)
        model = load_start(parts.start, len(parts.tokenizer), storage).to(runtime.device)
        return _live(recipe, runtime, Scorer(model, parts.choices.path))
    policy = ReferenceModel(parts.scorer, parts.start, recipe.model.name, parts.choices.token_budget)
    return _values(recipe, runtime, policy, parts.data, parts.run_dir)


def _foreign_reference(
    recipe: Recipe,
    runtime: Runtime,
    run_dir: Path,
    start: Start,
    data: Data,
    tokenizer: PreTrainedTokenizerBase,
) -> ReferenceSource:
    """Return the reference that is another model than the one the policy starts from."""
    model = load_reference(recipe, runtime, start, data.train, tokenizer)
    if recipe.reference.source == "live":
        return _live(recipe, runtime, model.scorer)
    return _values(recipe, runtime, model, data, run_dir)


def _live(recipe: Recipe, runtime: Runtime, scorer: Scorer) -> LiveReference:
    return LiveReference(scorer, lambda: runtime.autocast(recipe.reference.precision))


def _values(
    recipe: Recipe, runtime: Runtime, model: ReferenceModel, data: Data, run_dir: Path
) -> ReferenceValues:
    prepared = prepare(recipe, runtime, model, to_score(recipe, data), run_dir)
    facts = facts_of(data.train, prepared.values)
    if runtime.is_main:
        for line in [*prepared.lines(), *(facts.lines() if facts else [])]:
            say(terminal.console(), line)
    return prepared.values
