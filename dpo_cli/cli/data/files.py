"""Data files named on the command line, without a recipe: what they hold, and their first rows as a model sees them."""

from __future__ import annotations

import shlex
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dpo_cli.errors import ModelError, RecipeError, UserError

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedTokenizerBase

    from dpo_cli.data.dataset import Data
    from dpo_cli.data.detect.infer import Inferred
    from dpo_cli.recipe.schema import Data as DataConfig
    from dpo_cli.recipe.schema import Source

NO_LIMIT = 1_000_000
"""Tokens: nothing is cut where lengths are to be seen."""

FormatOption = Annotated[
    str,
    typer.Option("--format", metavar="NAME", help="Layout of the rows (`dpo formats`), where several fit."),
]
ColumnOption = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        metavar="NAME=COLUMN",
        help="What a column is, as in prompt=question, a path (text=info.post) or a sum of some; may be repeated.",
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
BetterOption = Annotated[
    str | None, typer.Option("--better", metavar="higher|lower", help="Which ratings are the better ones.")
]
GatherOption = Annotated[
    str,
    typer.Option("--gather", metavar="HOW", help="What makes one example: rows, prompt, tree or parent."),
]
IgnoreOption = Annotated[
    list[str] | None,
    typer.Option("--ignore", metavar="COLUMN", help="A column that does not matter; may be repeated."),
]
SkipNullOption = Annotated[
    bool, typer.Option("--skip-null", help="Leave out rows with null where something is read.")
]
ChatTemplateOption = Annotated[
    str | None,
    typer.Option(
        "--chat-template", metavar="FILE", help="A .jinja chat template in place of the tokenizer's own."
    ),
]
MergeSystemOption = Annotated[
    bool,
    typer.Option(
        "--merge-system",
        help="Put system prompts in front of the first user turn, for a template without a system role.",
    ),
]
ControlTokenOption = Annotated[
    list[str] | None,
    typer.Option(
        "--control-token",
        metavar="TOKEN",
        help="A control token that the rows mean as such, as fill-in-the-middle data do; may be repeated.",
    ),
]


@dataclass(frozen=True)
class Stated:
    """What options say of data files."""

    layout: str = "auto"
    columns: Sequence[str] | None = None
    labels: Sequence[str] | None = None
    better: str | None = None
    gather: str = "rows"
    ignore: Sequence[str] | None = None
    skip_null: bool = False

    def source(self, path: str) -> Source:
        """Return a file as a source.

        Raises:
            RecipeError: an option that is not NAME=VALUE, or a word that it does not know.
        """
        from dpo_cli.recipe.schema import Source

        for option, value, known in (
            ("--better", self.better, (None, "higher", "lower")),
            ("--gather", self.gather, ("rows", "prompt", "tree", "parent")),
        ):
            if value not in known:
                choices = ", ".join(each for each in known if each)
                raise RecipeError.of(option, f"'{value}' is not one of {choices}", f"{option} {known[-1]}")
        words: dict[str, list[str]] = {}
        for meaning, text in (_halves("--label", text) for text in self.labels or []):
            words.setdefault(meaning, []).append(text)
        return Source(
            path=path,
            format=self.layout,
            columns=dict(_halves("--column", text) for text in self.columns or []),
            labels=words,
            better=self.better,  # type: ignore[arg-type]
            gather=self.gather,  # type: ignore[arg-type]
            ignore=list(self.ignore or []),
            skip_null=self.skip_null,
        )


def is_data_file(path: str) -> bool:
    """Return whether a name has a data file's ending."""
    from dpo_cli.data.sources.files import SUFFIXES

    return path.endswith(SUFFIXES)


def infer_files(files: Sequence[str], stated: Stated) -> list[Inferred]:
    """Return what each file holds, by what the options state and what the rows show.

    Raises:
        RecipeError: see `Stated.source`.
        DataError: see `infer`; a question offers this command again, with what answers it.
    """
    from dpo_cli.data.detect.infer import infer

    command = ("dpo", *sys.argv[1:])
    return [infer(stated.source(path), command) for path in files]


def _halves(option: str, text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign:
        raise RecipeError.of(option, f"'{text}' is not NAME=VALUE", f"as in {option} prompt=question")
    return name, value


@dataclass(frozen=True)
class Rendering:
    """What options say of how rows become tokens; the recipe has keys of these names."""

    chat_template: str | None = None
    merge_system: bool = False
    control_tokens: Sequence[str] | None = None

    def data(self, sources: list[Source], **fields: Any) -> DataConfig:
        """Return the recipe's data group for some sources."""
        from dpo_cli.recipe.schema import Data

        tokens = list(self.control_tokens or [])
        return Data(train=sources, merge_system=self.merge_system, control_tokens=tokens, **fields)


def first_rows(
    found: Sequence[Inferred], model: str, n: int | None, rendering: Rendering
) -> tuple[Path, PreTrainedTokenizerBase, Data]:
    """Return a model's folder and tokenizer, and the first rows of each file, or all, as tokens, none cut. Leaves nothing behind.

    Raises:
        UserError: no such model or tokenizer, or rows that it cannot take; where merged system prompts would do, with the whole command.
    """
    from dpo_cli import methods
    from dpo_cli.data.load import load_data
    from dpo_cli.data.tokenize.template import SystemLost
    from dpo_cli.data.tokenize.tokenizer import load_tokenizer
    from dpo_cli.modeling.hub import model_folder
    from dpo_cli.preflight.draft_recipe import method_for
    from dpo_cli.recipe.schema import Model, Split
    from dpo_cli.types import DataNeeds

    needs = DataNeeds(methods.get(method_for({source.format.kind for source in found})).data)
    folder = model_folder(model, None, weights=False)
    tokenizer = load_tokenizer(Model(name=str(folder), chat_template=rendering.chat_template))
    sources = [replace(source.source, limit=n) for source in found]
    with tempfile.TemporaryDirectory() as scratch:
        data = rendering.data(sources, split=Split(eval=0.0), max_length=NO_LIMIT, cache=scratch)
        try:
            return folder, tokenizer, load_data(data, tokenizer, needs)
        except SystemLost as error:
            load_data(
                replace(data, merge_system=True), tokenizer, needs
            )  # the command is printed if it works
            (problem,) = error.problems
            command = shlex.join(["dpo", *sys.argv[1:], "--merge-system"])
            fix = f"`{command}` puts it in front of the first user turn; or --chat-template FILE of one that writes it"
            raise ModelError.of(problem.where, problem.what, fix) from error
        except UserError as error:
            raise type(error)(
                replace(problem, fix=problem.fix.replace("model.chat_template=PATH", "--chat-template FILE"))
                for problem in error.problems
            ) from error
