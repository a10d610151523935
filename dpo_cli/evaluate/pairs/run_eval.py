"""`dpo eval`: a model's judgement of held-out pairs, row by row. Reference and policy are never in memory together."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from dpo_cli import methods
from dpo_cli.data.adapt import WORDS
from dpo_cli.data.dataset import Data, DataRow
from dpo_cli.data.load import load_data
from dpo_cli.data.split import pair_key
from dpo_cli.data.tokenize.tokenizer import load_tokenizer
from dpo_cli.engine.open_model import load_start, policy_start, storage_of
from dpo_cli.engine.runtime import Runtime
from dpo_cli.engine.scoring import log_probs_over_ranks, score_over_ranks
from dpo_cli.errors import DataError, ModelError, Problem, RecipeError
from dpo_cli.evaluate.pairs.held_out import judged
from dpo_cli.evaluate.pairs.pair_metrics import figures
from dpo_cli.evaluate.pairs.pair_rows import PairRows
from dpo_cli.evaluate.pairs.results import EVAL, write_results
from dpo_cli.methods._base import TIE_NATS, annotated, reward_metrics
from dpo_cli.metrics.progress import progress
from dpo_cli.modeling.adapters import continue_adapter
from dpo_cli.modeling.exactness import choose_path
from dpo_cli.modeling.hub import Start
from dpo_cli.modeling.load import load_reward_model
from dpo_cli.modeling.precision import token_budget
from dpo_cli.modeling.scorer import Scorer
from dpo_cli.recipe.schema import Data as DataConfig
from dpo_cli.recipe.schema import Recipe, Split
from dpo_cli.reference.cached import ReferenceValues
from dpo_cli.reference.known_values import pinned_values
from dpo_cli.reference.provide import load_reference, prepare
from dpo_cli.reference.source import reference_of
from dpo_cli.runs.target import NONE, Part, Subject, has_reward_head, subject_of
from dpo_cli.types import DataNeeds, LogProbs, TokenGroup, Want


@dataclass(frozen=True, eq=False)
class Measured:
    """A model's rows and what they come to."""

    rows: PairRows
    facts: dict[str, Any]
    """What `dpo eval --json` prints."""


def measure(subject: Subject, split: Part, runtime: Runtime) -> Measured:
    """Score the held-out pairs of a subject, each once on any number of ranks; every rank gets them all.

    Raises:
        UserError: what is wrong with rows, model or reference.
    """
    recipe = subject.recipe
    start, tokenizer = open_subject(subject)
    rows = held_out(subject, tokenizer, split)
    groups = [row.group for row in rows]
    want = methods.get(recipe.method.name).wants(recipe.method) - {"confidence"}
    reference = reference_of(reference_values(subject, runtime, start, groups, want, tokenizer), groups, want)
    policy, path = score_policy(recipe, runtime, start, groups, want, tokenizer)
    rows_judged, loss = _judge(subject, rows, policy, reference, runtime.precision)
    return Measured(rows_judged, _facts(subject, split, rows_judged, loss, runtime.precision, path))


def open_subject(subject: Subject) -> tuple[Start, PreTrainedTokenizerBase]:
    """Find a subject's model and load its tokenizer.

    Raises:
        ModelError: no such model, or one without the head that its method scores with.
    """
    recipe = subject.recipe
    start = policy_start(recipe, weights=True)
    if methods.get(recipe.method.name).trains_head and not has_reward_head(start.folder):
        what = f"'{subject.name}' has no reward head: its scores would be random"
        raise ModelError.of("model.name", what, "a model that `method: {name: reward}` trained")
    return start, load_tokenizer(replace(recipe.model, name=str(start.tokenizer)))


def measure_into(
    subject: Subject, split: Part, out: Path | None, runtime: Runtime
) -> tuple[Measured, Path | None]:
    """Measure, and write the results into `out` or the run's own folder; return that folder, None for a model without either.

    Raises:
        UserError: as `measure`; results that cannot be written.
    """
    measured = measure(subject, split, runtime)
    own = subject.run / EVAL / subject.result_name(split) if subject.run else None
    folder = out or own
    if folder is not None and runtime.is_main:
        write_results(measured.rows, measured.facts, folder)
    return measured, folder


def keep(
    run: Path,
    rows: Sequence[DataRow],
    policy: LogProbs,
    reference: LogProbs | None,
    runtime: Runtime,
    path: str,
) -> None:
    """Write what a run's end found as the results that `dpo eval RUN` would write: `dpo compare` then measures nothing again.

    Args:
        run: its folder, with the model in it that the log-probs are of.
        rows: its held-out pairs, n.
        policy: of their completions, (2n,), on the CPU.
        reference: the same completions, (2n,); None for a method without a reference.
        runtime: whose main rank writes.
        path: how the rows were laid out.

    Raises:
        StorageError: they cannot be written.
    """
    if not runtime.is_main:
        return
    subject = subject_of(str(run))
    judged_rows, loss = _judge(subject, rows, policy, reference, runtime.precision)
    facts = _facts(subject, "eval", judged_rows, loss, runtime.precision, path)
    write_results(judged_rows, facts, run / EVAL / subject.result_name("eval"))


def held_out(subject: Subject, tokenizer: PreTrainedTokenizerBase, split: Part) -> list[DataRow]:
    """Return the pairs to measure on: the recipe's own sets, or the share of its training rows that the prompts' digests hold out.

    Raises:
        DataError: there are none, or they are no pairs.
        RecipeError: nothing says which.
    """
    data = subject.recipe.data
    needs = DataNeeds("pairs", whole_rows=methods.get(subject.recipe.method.name).trains_head)
    if split == "eval" and data.eval:
        # Only these are read: not a million training rows for their sake.
        sets = [replace(source, split=source.split or "test", weight=1.0) for source in data.eval]
        only = replace(data, train=sets, eval=[], split=Split(eval=0.0, test=0.0), drop=None)
        return _load(only, tokenizer, needs, "data.eval").train_rows
    if not subject.has_training_data:
        what = f"'{subject.name}' comes without rows to measure on"
        raise RecipeError.of("data.eval", what, "data.eval=[{path: pairs.jsonl}]")
    rows = getattr(_load(replace(data, eval=[]), tokenizer, needs, "data.train"), f"{split}_rows")
    if not rows:
        what = f"no row is held out for '{split}': the recipe's share is {getattr(data.split, split):g}"
        fix = "data.eval=[{path: pairs.jsonl}] with rows that it was not trained on"
        raise DataError.of(f"data.split.{split}", what, fix)
    return list(rows)


def _load(data: DataConfig, tokenizer: PreTrainedTokenizerBase, needs: DataNeeds, key: str) -> Data:
    """Load `data.train`, and tell what is wrong with it by the recipe's own key for these rows and by what measuring takes.

    Raises:
        DataError: as `load_data`.
    """
    try:
        return load_data(data, tokenizer, needs)
    except DataError as error:
        raise DataError(_as_measured(problem, key) for problem in error.problems) from None


def _as_measured(problem: Problem, key: str) -> Problem:
    holds, of_method, _ = problem.what.partition(", the method takes ")
    if of_method:
        what = f"{holds}, measuring takes {WORDS['pairs']}, whatever the method"
        return Problem(problem.where.replace("data.train", key), what, "data.eval=[{path: pairs.jsonl}]")
    return Problem(*(part.replace("data.train", key) for part in (problem.where, problem.what, problem.fix)))


def reference_values(
    subject: Subject,
    runtime: Runtime,
    start: Start,
    groups: Sequence[TokenGroup],
    want: frozenset[Want],
    tokenizer: PreTrainedTokenizerBase,
) -> ReferenceValues | None:
    """Return the reference's values: as the run pinned them, from the store, or scored now by a model that is then let go.

    None where there is no reference.

    Raises:
        UserError: what is wrong with the reference or the store.
    """
    if not subject.is_compared:
        return None
    asked = [*groups, *(group.public() for group in groups)] if "public" in want else list(groups)
    if subject.run is not None and subject.has_own_reference:
        pinned = runtime.from_main(pinned_values(asked, subject.run) if runtime.is_main else None)
        if pinned is not None:
            return ReferenceValues(pinned)
    model = load_reference(subject.recipe, runtime, start, groups, tokenizer)
    values = prepare(subject.recipe, runtime, model, asked, None).values
    del model
    gc.collect()  # modules refer to themselves: before the policy is loaded beside it
    return values


def score_policy(
    recipe: Recipe,
    runtime: Runtime,
    start: Start,
    groups: Sequence[TokenGroup],
    want: frozenset[Want],
    tokenizer: PreTrainedTokenizerBase,
) -> tuple[LogProbs, str]:
    """Load a model, score groups over all ranks and let it go; return its log-probs (N,), or scores, and how the rows were laid out."""
    storage = storage_of(recipe, runtime, start)
    with progress("loading the model"):
        if methods.get(recipe.method.name).trains_head:
            model = load_reward_model(start.base, len(tokenizer), **storage)
            if start.adapter is not None:
                continue_adapter(model, start.adapter)
        else:
            model = load_start(start, len(tokenizer), storage)
    scorer = Scorer(model.to(runtime.device))
    is_fp32 = runtime.precision == "fp32"
    path = choose_path(scorer, groups, recipe.model.attention, runtime.autocast, is_fp32).path
    scorer.take(path)
    wanted = recipe.train.max_tokens_per_micro_batch
    fitting = token_budget(scorer.model, runtime.device, runtime.precision)
    budget = fitting if wanted == "auto" else int(wanted)
    with progress("evaluation", len(groups) * (1 + len(want))) as advance:
        scored = log_probs_over_ranks(
            lambda asked: score_over_ranks(runtime, scorer, asked, budget, advance), groups, want
        )
    return scored, path


def _judge(
    subject: Subject,
    rows: Sequence[DataRow],
    policy: LogProbs,
    reference: LogProbs | None,
    precision: str,
) -> tuple[PairRows, float | None]:
    """Return the pairs with their rewards, and the method's loss on them; None without the reference that it needs."""
    groups, config = [row.group for row in rows], subject.recipe.method
    method = methods.get(config.name)
    loss: float | None = None
    if subject.left_out:
        metrics = reward_metrics(policy.total[0::2], policy.total[1::2], policy)
    else:
        loss, metrics = judged(annotated(policy, groups), reference, method, config, TIE_NATS[precision])
    rewards = np.stack(
        [metrics[f"rewards/{side}"].double().numpy() for side in ("chosen", "rejected")], axis=1
    )
    nothing = np.full((len(rows), 2), np.nan)
    logps = nothing if method.trains_head else policy.total.double().numpy().reshape(-1, 2)
    theirs = nothing if reference is None else reference.total.double().numpy().reshape(-1, 2)
    names = set_names([row.source for row in rows])
    return PairRows(
        key=np.array([pair_key(row.example) for row in rows], dtype=object),
        set=np.array([names[row.source] for row in rows], dtype=object),
        source=np.array([row.group.source for row in rows], dtype=object),
        prompt=np.array([row.prompt_key for row in rows], dtype=object),
        ids=np.array([group.keys for group in groups], dtype=object),
        prompt_tokens=np.array([len(group.prompt) for group in groups]),
        tokens=np.array([group.scored for group in groups]),
        logps=logps,
        ref_logps=theirs,
        rewards=rewards,
        tie=(metrics["rewards/accuracies"] == 0.5).numpy(),
    ), loss


def set_names(paths: Sequence[str]) -> dict[str, str]:
    """Return a short name for each source: its file's, or the whole path where two files are called the same."""
    stems = {path: Path(path).name.partition(".")[0] or path for path in dict.fromkeys(paths)}
    taken = list(stems.values())
    return {path: stem if taken.count(stem) == 1 else path for path, stem in stems.items()}


def _facts(
    subject: Subject, split: Part, rows: PairRows, loss: float | None, precision: str, path: str
) -> dict[str, Any]:
    recipe = subject.recipe
    names = list(dict.fromkeys(rows.set.tolist()))
    return {
        "name": subject.name,
        "split": split,
        "what": "log-prob accuracy" if subject.left_out else "reward accuracy",
        **figures(rows),
        "loss": loss,
        "sets": {name: figures(rows.take(rows.set == name)) for name in names},
        "left_out": subject.left_out or None,
        "method": recipe.method.name,
        "form": methods.get(recipe.method.name).form(recipe.method),
        "model": recipe.model.name,
        "reference": recipe.reference.model if subject.is_compared else None,
        "precision": precision,
        "layout": path,
        "overrides": [text for text in subject.overrides if text != NONE],
    }
