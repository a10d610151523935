"""`dpo sample`: what a policy and its reference answer, and how far apart they are. The two are never in memory together."""

from __future__ import annotations

import gc
import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerBase

from dpo_cli import methods
from dpo_cli.engine.batching import score_groups
from dpo_cli.engine.generate import Ask, generate, generation_budget, stop_ids
from dpo_cli.engine.open_model import load_start, storage_of
from dpo_cli.engine.runtime import Runtime
from dpo_cli.engine.vllm import vllm_generate
from dpo_cli.errors import DistributedError, ModelError, RecipeError, StorageError
from dpo_cli.evaluate.pairs.run_eval import open_subject
from dpo_cli.evaluate.samples.prompts import Prompt, prompts_of
from dpo_cli.evaluate.samples.samples_file import Row, read_samples, repetition, write_rows
from dpo_cli.metrics.progress import progress
from dpo_cli.modeling.exactness import choose_path
from dpo_cli.modeling.hub import Start, model_start
from dpo_cli.modeling.precision import token_budget
from dpo_cli.modeling.scorer import Scorer
from dpo_cli.reference.fingerprint import remembered_digest
from dpo_cli.reference.provide import check_vocabulary
from dpo_cli.reference.store import default_root
from dpo_cli.runs.target import Subject
from dpo_cli.types import TokenGroup

COMMIT_EVERY_S = 5.0
"""A kill costs what was said since."""


@dataclass(frozen=True)
class Draws:
    """How often each prompt is asked, and how."""

    n: int = 1
    """Answers a prompt and temperature; one at temperature 0, where they are all the same."""
    temperatures: tuple[float, ...] = (1.0,)
    max_new_tokens: int = 128
    seed: int = 0
    limit: int = 100
    """Prompts; 0: all."""
    engine: Literal["transformers", "vllm"] = "transformers"
    """What generates."""


def sample(
    subject: Subject, reference: str | None, data: Path | None, draws: Draws, out: Path, runtime: Runtime
) -> tuple[list[Row], list[str]]:
    """Return the rows of `out`, which holds all that was asked for afterwards, and what to note; rows that it held before are kept.

    Args:
        subject: the policy; its recipe says how text becomes ids.
        reference: what it is held against; None: nothing.
        data: a file of prompts; None: the rows that the recipe holds out.
        draws: how often and how they are asked.
        out: the file of samples.
        runtime: one process.

    Raises:
        StorageError: the file holds samples of another model or of other settings, or cannot be written.
        UserError: what is wrong with models or prompts.
    """
    if runtime.world > 1:
        raise DistributedError.of(
            "dpo sample", f"{runtime.world} processes would write one file", "a single process"
        )
    if methods.get(subject.recipe.method.name).trains_head:
        raise ModelError.of("MODEL", f"'{subject.name}' gives scores, not answers", "a language model")
    start, tokenizer = open_subject(subject)
    behind = None
    if reference is not None:
        behind = model_start(reference, None, weights=True, key="--reference")
        check_vocabulary(subject.recipe, behind.tokenizer, tokenizer)
    longest = _longest_prompt(subject, start, draws)
    prompts, notes = prompts_of(subject, tokenizer, data, draws.limit, longest)
    sheet = _Sheet(out, _rows(prompts, draws, read_samples(out), out), {p.key: p.ids for p in prompts})
    work = _Work(subject, tokenizer, draws, runtime)
    _complete(work, sheet, "policy", start, subject.name)
    if behind is not None and reference is not None:
        _complete(work, sheet, "reference", behind, reference)
    return sheet.rows, notes


def _longest_prompt(subject: Subject, start: Start, draws: Draws) -> int:
    """Return how many tokens a prompt may have: what the recipe takes, and what leaves room for an answer within the model's positions."""
    config = AutoConfig.from_pretrained(start.base, local_files_only=True).get_text_config()
    positions = getattr(config, "max_position_embeddings", None) or 2**31  # none: nothing but memory ends it
    return min(subject.recipe.data.max_length - 1, positions - draws.max_new_tokens)


def reference_name(subject: Subject, asked: str | None) -> str | None:
    """Return the model that a policy is held against: the one asked for, or its own reference; None for `none`.

    Raises:
        RecipeError: nothing says which.
    """
    if asked == "none":
        return None
    found = asked or subject.recipe.reference.model
    if found is None:
        what = f"'{subject.name}' comes without a reference"
        raise RecipeError.of("--reference", what, "--reference MODEL, or --reference none")
    return found


@dataclass(frozen=True, eq=False)
class _Work:
    subject: Subject
    tokenizer: PreTrainedTokenizerBase
    draws: Draws
    runtime: Runtime


@dataclass(eq=False)
class _Sheet:
    """The rows, and the file that they are kept in."""

    path: Path
    rows: list[Row]
    ids: dict[str, list[int]]
    """Of each prompt that is asked now, by its key."""
    saved: float = 0.0

    def keep(self, *, at_once: bool = False) -> None:
        """Write the file, now or where the last time is a while ago."""
        if at_once or time.monotonic() - self.saved > COMMIT_EVERY_S:
            write_rows(self.rows, self.path)
            self.saved = time.monotonic()


def _rows(prompts: Sequence[Prompt], draws: Draws, held: list[Row], path: Path) -> list[Row]:
    """Return the rows of the file with those that are new behind them, still without answers."""
    settings = {"seed": draws.seed, "max_new_tokens": draws.max_new_tokens, "engine": draws.engine}
    for name, value in settings.items():
        if other := next((row for row in held if row[name] != value), None):
            what = f"its samples were made with {name} {other[name]}, not {value}"
            raise StorageError.of(str(path), what, "another --out, or the same settings")
    known = {(row["prompt_key"], row["temperature"], row["k"]) for row in held}
    new = []
    for prompt in prompts:
        example = prompt.example
        tools = {"tools": example.tools} if example.tools else {}
        kwargs = dict(example.template_kwargs)
        stated = {"prompt": example.prompt, **tools, **({"chat_template_kwargs": kwargs} if kwargs else {})}
        for temperature in draws.temperatures:
            for k in range(draws.n if temperature > 0 else 1):
                if (prompt.key, temperature, k) not in known:
                    drawn = {
                        "temperature": temperature,
                        "k": k,
                        **settings,
                        "policy": None,
                        "reference": None,
                    }
                    about = {"prompt_key": prompt.key, "source": example.source, "chosen": prompt.chosen}
                    new.append({**stated, **about, **drawn})
    return [*held, *new]


def _complete(work: _Work, sheet: _Sheet, role: str, start: Start, name: str) -> None:
    """Let a model say what it has not said yet, and score the policy's answers where it has not done so."""
    field = "logp" if role == "policy" else "ref_logp"
    asked = [row for row in sheet.rows if row["prompt_key"] in sheet.ids]
    before = [row[role] for row in sheet.rows if row[role] is not None]
    may_differ = any(answer["model"] != name for answer in before) or _is_newer(start, sheet.path)
    silent = [row for row in asked if row[role] is None]
    unscored = [row for row in asked if row["policy"] is None or row["policy"].get(field) is None]
    if not (silent or unscored or (before and may_differ)):
        return
    storage = storage_of(work.subject.recipe, work.runtime, start)
    with progress(f"loading the {role}"):
        model = load_start(start, len(work.tokenizer), storage).to(work.runtime.device)
    folders = [start.base] if start.adapter is None else [start.base, start.adapter]
    digest = remembered_digest(model, folders, default_root() / "digests.json")
    if other := next((answer for answer in before if answer["digest"] != digest), None):
        what = f"its samples of the {role} are those of '{other['model']}', which is not what '{name}' is now"
        raise StorageError.of(str(sheet.path), what, "another --out")
    for batch in _said(work, model, start, sheet, silent):
        for row, ids in batch:
            row[role] = _answer(ids, work.tokenizer, stop_ids(model, work.tokenizer), name, digest)
        sheet.keep()
    unscored = [row for row in asked if row["policy"].get(field) is None]
    for row, logp in zip(unscored, _scores(work, model, sheet, unscored), strict=True):
        row["policy"][field] = logp
    sheet.keep(at_once=True)
    del model
    gc.collect()  # modules refer to themselves: before the next one is loaded


def _is_newer(start: Start, path: Path) -> bool:
    """Return whether a model's weights were written after a file of its samples."""
    made = path.stat().st_mtime if path.exists() else 0.0
    return any(file.stat().st_mtime > made for file in start.folder.glob("*.safetensors"))


def _said(
    work: _Work, model: PreTrainedModel, start: Start, sheet: _Sheet, rows: Sequence[Row]
) -> Iterator[list[tuple[Row, list[int]]]]:
    """Yield the model's answers to rows, as they come."""
    stops = stop_ids(model, work.tokenizer)
    length = work.draws.max_new_tokens
    with progress("answers", len(rows)) as advance, work.runtime.autocast():
        for temperature in sorted({row["temperature"] for row in rows}):
            here = [row for row in rows if row["temperature"] == temperature]
            asks = [Ask(sheet.ids[row["prompt_key"]], _seed(row)) for row in here]
            if work.draws.engine == "vllm":
                batches = vllm_generate(start, asks, stops, temperature, length, work.runtime.precision)
            else:
                budget = generation_budget(model, model.device)
                batches = generate(
                    model, asks, stops, temperature=temperature, max_new_tokens=length, max_tokens=budget
                )
            for batch in batches:
                yield [(here[at], ids) for at, ids in batch]
                advance(len(batch))


def _seed(row: Row) -> int:
    """Return the seed of a draw's noise: the same for policy and reference, so equal models say the same."""
    text = f"{row['seed']}/{row['prompt_key']}/{row['temperature']:g}/{row['k']}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 1


def _answer(
    ids: list[int], tokenizer: PreTrainedTokenizerBase, stops: Sequence[int], name: str, digest: str
) -> dict[str, Any]:
    text = str(tokenizer.decode(ids, skip_special_tokens=True))
    return {
        "text": text.replace("\0", "\ufffd"),  # a byte that no file of rows may hold; `ids` say what was said
        "tokens": len(ids),
        "ended": ids[-1] in stops,
        "repetition": repetition(ids),
        "model": name,
        "digest": digest,
        "ids": ids,
    }


def _scores(work: _Work, model: PreTrainedModel, sheet: _Sheet, rows: Sequence[Row]) -> list[float]:
    """Return a model's summed log-prob, nats, of the tokens that the policy said, by the scorer that training uses."""
    if not rows:
        return []
    groups = [
        TokenGroup(
            np.array(sheet.ids[row["prompt_key"]], dtype=np.int32),
            (np.array(row["policy"]["ids"], dtype=np.int32),),
            (np.ones(len(row["policy"]["ids"]), dtype=bool),),
        )
        for row in rows
    ]
    runtime, scorer = work.runtime, Scorer(model)
    attention = work.subject.recipe.model.attention
    scorer.take(choose_path(scorer, groups, attention, runtime.autocast, runtime.precision == "fp32").path)
    with progress("log-probs of the answers", len(groups)) as advance:
        wanted = work.subject.recipe.train.max_tokens_per_micro_batch
        fitting = token_budget(model, runtime.device, runtime.precision)
        budget = fitting if wanted == "auto" else int(wanted)
        sums = score_groups(scorer, groups, budget, runtime.autocast, advance)
    return [own[0][0] for own in sums]
