"""The prompts that `dpo sample` asks: a run's held-out ones, or a file's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from dpo_cli.data.formats._base import BadRow, Row, check_turns, messages, template_fields, text
from dpo_cli.data.sources import jsonl
from dpo_cli.data.sources.placed_rows import Problems
from dpo_cli.data.split import prompt_key
from dpo_cli.data.tokenize.encode import Encoder
from dpo_cli.errors import DataError
from dpo_cli.evaluate.pairs.run_eval import held_out
from dpo_cli.runs.target import Subject
from dpo_cli.types import Example, Text

Asked = tuple[Example, str | None]
"""A prompt with any answer, and the one that the data prefer."""
_ANSWER = ({"role": "assistant", "content": "yes"},)


@dataclass(frozen=True)
class Prompt:
    """A prompt, as the data state it and as the model gets it."""

    example: Example
    key: str
    """Its digest, see `prompt_key`."""
    ids: list[int]
    chosen: str | None
    """The answer that the data prefer; None without one, or where it is more than a turn."""


def prompts_of(
    subject: Subject, tokenizer: PreTrainedTokenizerBase, path: Path | None, limit: int, longest: int
) -> tuple[list[Prompt], list[str]]:
    """Return the first `limit` distinct prompts, and what was left out, in words.

    Args:
        subject: what is asked; its recipe says how text becomes ids.
        tokenizer: the model's.
        path: JSONL, rows with `prompt` (text or messages) and perhaps `chosen`; None: the rows that the recipe holds out.
        limit: how many; 0: all.
        longest: tokens that a prompt may have.

    Raises:
        DataError: rows that are no prompts, or no prompt that fits.
        RecipeError: nothing says which rows.
    """
    encoder, notes = Encoder(tokenizer, subject.recipe.data), list[str]()
    if path is None:
        rows = [
            (row.example, _one_turn(row.example.completions)) for row in held_out(subject, tokenizer, "eval")
        ]
    else:
        rows = _read(path, has_template=bool(tokenizer.chat_template))
    n_rows = len(rows)
    if path is not None:
        rows, notes = _usable(rows, encoder)
    distinct = {prompt_key(example): (example, chosen) for example, chosen in reversed(rows)}
    found, too_long = [], 0
    for key, (example, chosen) in reversed(distinct.items()):
        ids = encoder.serving_prompt(example)[1]
        if len(ids) > longest:
            too_long += 1
            continue
        found.append(Prompt(example, key, ids, chosen))
        if len(found) == limit:
            break
    if too_long:
        notes.append(f"{too_long:,} prompts left out: more than {longest:,} tokens")
    if not found:
        what = f"none of {n_rows:,} prompts can be asked: {'; '.join(notes)}"
        raise DataError.of(str(path or "data.eval"), what, "data.max_length=..., --max-new-tokens")
    if len(found) + too_long < len(distinct):
        notes.append(f"the first {len(found):,} of {len(distinct):,} prompts (--limit)")
    return found, notes


def _usable(rows: Sequence[Asked], encoder: Encoder) -> tuple[list[Asked], list[str]]:
    """Return the rows whose prompt the template can say, and how many cannot be said and why."""
    encoded = encoder.encode([example for example, _ in rows])
    reasons = Counter(str(each.reason) for each in encoded if each.group is None)
    kept = [row for row, each in zip(rows, encoded, strict=True) if each.group is not None]
    return kept, [f"{n:,} prompts left out: {reason}" for reason, n in reasons.items()]


def _read(path: Path, has_template: bool) -> list[Asked]:
    if not path.is_file():
        raise DataError.of("--data", f"no such file: '{path}'", "JSONL, one {prompt} a line")
    problems, found = Problems(), []
    for row in jsonl.read(path, problems):
        try:
            found.append(_asked(row.values, row.place, has_template))
        except BadRow as error:
            problems.add(row.place, str(error), '{"prompt": "..."}')
    problems.raise_any()
    if not found:
        raise DataError.of(str(path), "0 rows: the file holds none", "check the path")
    return found


def _asked(row: Row, place: str, has_template: bool) -> Asked:
    """Return a row's prompt, with a word for its answer, and its `chosen` where it has one."""
    given = row.get("chosen")
    answer = messages(row, "chosen") if isinstance(given, list) else text(row, "chosen") if given else None
    chosen = None if answer is None else _one_turn([answer])
    if not isinstance(row.get("prompt"), str):
        prompt = messages(row, "prompt")
        check_turns(prompt, _ANSWER, "prompt")
        return Example(prompt, (_ANSWER,), place, **template_fields(row)), chosen
    question = text(row, "prompt")
    if not has_template:
        return Example(question, ("yes",), place), chosen
    turn = {"role": "user", "content": question}
    return Example((turn,), (_ANSWER,), place, **template_fields(row)), chosen


def _one_turn(completions: Sequence[Text]) -> str | None:
    best = completions[0]
    if isinstance(best, str):
        return best or None
    return str(best[0]["content"]) or None if len(best) == 1 else None
