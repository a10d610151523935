"""Data files named on the command line, without a recipe: what they hold, and their first rows as a model sees them."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from dpo_cli.errors import RecipeError

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedTokenizerBase

    from dpo_cli.data.infer import Inferred
    from dpo_cli.data.load import Data

NO_LIMIT = 1_000_000
"""Tokens: nothing is cut where lengths are to be seen."""

FormatOption = Annotated[
    str, typer.Option("--format", metavar="NAME", help="Layout of the rows, needed where two fit.")
]
ColumnOption = Annotated[
    list[str] | None,
    typer.Option(
        "--column", metavar="NAME=COLUMN", help="What a column is, as in prompt=question; may be repeated."
    ),
]
LabelOption = Annotated[
    list[str] | None,
    typer.Option(
        "--label",
        metavar="MEANING=WORD",
        help="What a word means, as in wanted=up or tie=0; may be repeated.",
    ),
]


def is_data_file(path: str) -> bool:
    """Say whether a name has a data file's ending."""
    from dpo_cli.data.read import SUFFIXES

    return path.endswith(SUFFIXES)


def infer_files(
    files: Sequence[str], layout: str, columns: Sequence[str] | None, labels: Sequence[str] | None
) -> list[Inferred]:
    """Give what each file holds, by what the options state and what the rows show.

    Raises:
        RecipeError: an option that is no NAME=VALUE.
        DataError: see `infer`.
    """
    from dpo_cli.data.infer import infer
    from dpo_cli.recipe.schema import Source

    named = dict(_halves("--column", text) for text in columns or [])
    words: dict[str, list[str]] = {}
    for meaning, text in (_halves("--label", text) for text in labels or []):
        words.setdefault(meaning, []).append(text)
    return [infer(Source(path=path, format=layout, columns=named, labels=words)) for path in files]


def _halves(option: str, text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign:
        raise RecipeError.of(option, f"'{text}' is no NAME=VALUE", f"as in {option} prompt=question")
    return name, value


def first_rows(
    found: Sequence[Inferred], model: str, n: int | None
) -> tuple[Path, PreTrainedTokenizerBase, Data]:
    """Give a model's folder and tokenizer, and the first rows of each file, or all, as tokens, none cut. Leaves nothing behind.

    Raises:
        UserError: no such model or tokenizer, or rows that it cannot take.
    """
    from dpo_cli import methods
    from dpo_cli.data.load import load_data
    from dpo_cli.data.tokenizer import load_tokenizer
    from dpo_cli.modeling.hub import model_folder
    from dpo_cli.recipe.schema import Data, Model, Split
    from dpo_cli.train.draft import method_for
    from dpo_cli.types import Diet

    diet = Diet(methods.get(method_for({source.format.kind for source in found})).data)
    folder = model_folder(model, None, weights=False)
    tokenizer = load_tokenizer(Model(name=str(folder)))
    sources = [replace(source.source, limit=n) for source in found]
    with tempfile.TemporaryDirectory() as scratch:
        data = Data(train=sources, split=Split(eval=0.0), max_length=NO_LIMIT, cache=scratch)
        return folder, tokenizer, load_data(data, tokenizer, diet)
