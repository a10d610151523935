"""Short ways to the values that the data tests need."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dpo_cli.data.dataset import Data
from dpo_cli.data.detect.parse import Parsed, parse_rows
from dpo_cli.data.load import PAIRS, load_data
from dpo_cli.data.sources.files import read_source
from dpo_cli.data.sources.placed_rows import PlacedRow, Problems
from dpo_cli.data.tokenize.encode import Encoder
from dpo_cli.data.tokenize.template import keeps_control_text
from dpo_cli.data.tokenize.truncate import Encoded
from dpo_cli.recipe.schema import Data as DataConfig
from dpo_cli.recipe.schema import Source, Split
from dpo_cli.types import DataNeeds, Example
from tests.fakes import byte_tokenizer, write_jsonl

needs_control_text = pytest.mark.skipif(
    not keeps_control_text(byte_tokenizer()), reason="transformers before 5.20 drops such rows"
)
"""Of a test with rows that spell control tokens."""


def config(**fields: Any) -> DataConfig:
    return DataConfig(**{"train": [Source(path="unused.jsonl")], **fields})


def read(path: Path | str, **fields: Any) -> list[PlacedRow]:
    """Rows of one source; raises what is wrong with its lines."""
    problems = Problems()
    rows = list(read_source(Source(path=str(path), **fields), "data.train[0]", problems))
    problems.raise_any()
    return rows


def parse(rows: list[Any], has_template: bool = True, **fields: Any) -> Parsed:
    """Examples of rows that stand in `rows.jsonl` from line 1 on; raises what is wrong with them."""
    problems = Problems()
    placed = [PlacedRow(row, f"rows.jsonl:{i}") for i, row in enumerate(rows, 1)]
    source = Source(path="rows.jsonl", **fields)
    parsed = parse_rows(placed, source, "data.train[0]", has_template, problems)
    problems.raise_any()
    assert parsed is not None, "there are rows"
    return parsed


def load_rows(
    folder: Path,
    rows: list[Any],
    *,
    tokenizer: Any = None,
    source: dict[str, Any] | None = None,
    needs: DataNeeds = PAIRS,
    **fields: Any,
) -> Data:
    """Write rows as a file and load them with all of `data`'s machinery; nothing is held out unless `split` says so."""
    path = write_jsonl(folder / "train.jsonl", rows)
    defaults = {"cache": str(folder / "cache"), "split": Split(eval=0.0)}
    data = config(train=[Source(path=str(path), **(source or {}))], **{**defaults, **fields})
    return load_data(data, tokenizer or byte_tokenizer(), needs)


def chat(prompt: Any, *completions: Any, **fields: Any) -> Example:
    """A conversation from strings (one user turn, one answer each) or from (role, content) turns."""
    question = turns(("user", prompt)) if isinstance(prompt, str) else turns(*prompt)
    answers = tuple(turns(("assistant", c)) if isinstance(c, str) else turns(*c) for c in completions)
    return Example(question, answers, "rows.jsonl:1", **fields)


def turns(*pairs: tuple[str, str]) -> tuple[dict[str, str], ...]:
    return tuple({"role": role, "content": content} for role, content in pairs)


def encode_one(example: Example, tokenizer: Any, **fields: Any) -> Encoded:
    return Encoder(tokenizer, config(**fields)).encode([example])[0]


def scored_text(encoded: Encoded, k: int, tokenizer: Any) -> str:
    assert encoded.group is not None, encoded.reason
    return str(tokenizer.decode(encoded.group.completions[k][encoded.group.masks[k]]))


def full_ids(encoded: Encoded, k: int) -> list[int]:
    assert encoded.group is not None, encoded.reason
    return [*encoded.group.prompt.tolist(), *encoded.group.completions[k].tolist()]
