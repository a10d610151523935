"""`dpo score`: the reward of any number of completions of a prompt: a policy and its reference are a reward model.

Rafailov et al. 2023, arXiv:2305.18290: r(x, y) = beta log(pi(y|x) / pi_ref(y|x)), up to what depends on the prompt alone. So rewards
rank completions of one prompt; across prompts they mean nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dpo_cli import methods
from dpo_cli.data.formats._base import BadRow, check_turns, messages, template_fields, text
from dpo_cli.data.row_notes import Note
from dpo_cli.data.sources import jsonl
from dpo_cli.data.sources.placed_rows import PlacedRow, Problems
from dpo_cli.data.tokenize.encode import Encoder
from dpo_cli.engine.runtime import Runtime
from dpo_cli.errors import DataError
from dpo_cli.evaluate.pairs.run_eval import open_subject, reference_values, score_policy
from dpo_cli.methods._base import Method
from dpo_cli.runs.target import Subject
from dpo_cli.types import Example, LogProbs, TokenGroup

COLUMN = "completions"


def rate(subject: Subject, path: Path, runtime: Runtime) -> list[dict[str, Any]]:
    """Return a file's rows with `rewards`, `ranking` (places of the completions, best first) and `best` (the first of them).

    A row that cannot be scored (its prompt leaves no room within `data.max_length`) keeps its place, with `rewards` null and `reason`.
    Where completions had to be cut to that length, `cut` holds their places.

    Args:
        subject: the model and what it is compared with.
        path: JSONL, rows with `prompt` (text or messages) and `completions` (a list of text or of messages).
        runtime: the devices; every rank gets all rows.

    Raises:
        DataError: rows that are none such.
        UserError: what is wrong with model or reference.
    """
    recipe, method = subject.recipe, methods.get(subject.recipe.method.name)
    start, tokenizer = open_subject(subject)
    rows = read_rows_to_rate(path, has_template=bool(tokenizer.chat_template))
    # One completion a group: samples repeat each other, and a group's completions are distinct. Their prompt is computed for each.
    single = [
        replace(example, completions=(completion,))
        for _, example in rows
        for completion in example.completions
    ]
    encoder = Encoder(tokenizer, recipe.data, whole_rows=method.trains_head)
    encoded = encoder.encode(single)
    groups: dict[str, TokenGroup] = {each.group.keys[0]: each.group for each in encoded if each.group}
    if not groups:
        raise DataError.of(
            str(path), f"0 usable rows of {len(rows)} ({encoded[0].reason})", "data.max_length=..."
        )
    distinct = list(groups.values())
    values = reference_values(subject, runtime, start, distinct, frozenset(), tokenizer)
    policy, _ = score_policy(recipe, runtime, start, distinct, frozenset(), tokenizer)
    reference = None if values is None else values.lookup(distinct)
    given = rewards(policy, reference, method, recipe.method, is_bare=bool(subject.left_out)).tolist()
    by_key = dict(zip(groups, given, strict=True))
    scores = iter(
        (None, str(each.reason), False)
        if each.group is None
        else (by_key[each.group.keys[0]], None, Note.CUT in each.notes)
        for each in encoded
    )
    return [_rated(row, [next(scores) for _ in example.completions]) for row, example in rows]


def read_rows_to_rate(path: Path, has_template: bool) -> list[tuple[Mapping[str, Any], Example]]:
    """Return a file's rows, each with what it asks to be scored.

    Raises:
        DataError: a missing file, lines that are no such rows: all of them, with their lines.
    """
    if not path.is_file():
        raise DataError.of("FILE", f"no such file: '{path}'", "JSONL, one {prompt, completions} a line")
    problems, rows = Problems(), []
    for row in jsonl.read(path, problems):
        try:
            rows.append((row.values, _example(row, has_template)))
        except BadRow as error:
            problems.add(row.place, str(error), '{"prompt": "...", "completions": ["...", "..."]}')
    problems.raise_any()
    if not rows:
        raise DataError.of(str(path), "0 rows: the file holds none", "check the path")
    return rows


def _example(row: PlacedRow, has_template: bool) -> Example:
    given = row.values.get(COLUMN)
    if not isinstance(given, list) or not given:
        raise BadRow(f'"{COLUMN}" is no list of answers; found {sorted(row.values)}')
    fields = {str(k): answer for k, answer in enumerate(given)}
    if not isinstance(row.values.get("prompt"), str):
        prompt = messages(row.values, "prompt")
        turns = tuple(
            messages(fields, k) if isinstance(answer, list) else _answer(text(fields, k))
            for k, answer in fields.items()
        )
        for completion in turns:
            check_turns(prompt, completion, COLUMN)
        return Example(prompt, turns, row.place, **template_fields(row.values))
    prompt_text, answers = row.values["prompt"], [text(fields, k) for k in fields]
    if not has_template:
        return Example(prompt_text, tuple(answers), row.place)
    asked = ({"role": "user", "content": prompt_text},)
    return Example(asked, tuple(_answer(each) for each in answers), row.place, **template_fields(row.values))


def _answer(content: str) -> tuple[dict[str, str]]:
    return ({"role": "assistant", "content": content},)


def rewards(
    policy: LogProbs, reference: LogProbs | None, method: Method, config: Any, *, is_bare: bool
) -> Tensor:
    """Return the reward of each completion in the method's own units, (N,).

    Args:
        policy: (N,) log-probs, or a reward model's scores.
        reference: the same completions, (N,); None without one.
        method: says what a reward is.
        config: its knobs.
        is_bare: no reference where the method has one: the reward is the summed log-prob.
    """
    if is_bare:
        return policy.total
    if method.reward is not None:
        return method.reward(policy, reference, config)
    # A loss of pairs tells the reward of a completion when it is paired with itself.
    twice = _twice(policy)
    nothing = torch.zeros(len(policy.total))
    asked = replace(twice, prompt=nothing, prompt_tokens=nothing.long())
    out = method.loss(asked, None if reference is None else _twice(reference), config)
    return out.metrics["rewards/chosen"]


def _twice(scored: LogProbs) -> LogProbs:
    total, tokens = scored.total.repeat_interleave(2), scored.tokens.repeat_interleave(2)
    return LogProbs(total, tokens, public=total)


def _rated(row: Mapping[str, Any], found: Sequence[tuple[float | None, str | None, bool]]) -> dict[str, Any]:
    if cut := [k for k, (_, _, is_cut) in enumerate(found) if is_cut]:
        row = {**row, "cut": cut}
    values = [value for value, *_ in found if value is not None]
    if len(values) < len(found):
        reason = next(reason for _, reason, _ in found if reason is not None)
        return {**row, "rewards": None, "ranking": None, "best": None, "reason": reason}
    ranking = sorted(range(len(values)), key=lambda k: -values[k])
    return {**row, "rewards": values, "ranking": ranking, "best": ranking[0]}


def best_only(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a rated row with its best completion alone, as `completion` and `reward`, of how many."""
    kept = {key: value for key, value in row.items() if key not in (COLUMN, "rewards", "ranking", "best")}
    if row["best"] is None:
        return {**kept, "completion": None, "reward": None, "of": len(row[COLUMN])}
    at = row["best"]
    return {**kept, "completion": row[COLUMN][at], "reward": row["rewards"][at], "of": len(row[COLUMN])}
