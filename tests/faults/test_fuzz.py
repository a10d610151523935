"""Recipes and rows that nobody would write: one documented exit code or a result, never a traceback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dpo_cli.data.dataset import Data
from dpo_cli.data.load import load_data
from dpo_cli.errors import DataError, ModelError, RecipeError
from dpo_cli.methods import names
from dpo_cli.recipe.load import Loaded, load
from dpo_cli.recipe.rules import flat
from dpo_cli.recipe.schema import Data as DataConfig
from dpo_cli.recipe.schema import Source, Split
from tests.fakes import byte_tokenizer

pytestmark = pytest.mark.slow

CASES = settings(
    max_examples=2000,
    deadline=None,
    derandomize=True,  # the same 2,000 everywhere: a finding is a failure that others see too
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

RECIPE: dict[str, Any] = {
    "model": {"name": "org/model"},
    "data": {"train": [{"path": "rows.jsonl", "limit": 3}], "split": {"eval": 0.1}},
    "method": {"name": "dpo", "beta": 0.1},
    "reference": {"source": "cache"},
    "optim": {"lr": 1e-6, "betas": [0.9, 0.99]},
    "train": {"batch_size": 4, "max_steps": 3},
    "log": {"trackers": []},
}
ODD = (
    "",
    " ",
    "\0",
    "\x1b[2J",
    "../x",
    "/",
    "-rf",
    "~",
    "null",
    "5e-7",
    "1_000",
    "${oc.env:HOME}",
    "{method.beta}",
    "{}",
    "{",
    "[[[",
    "&a *a",
    "!!python/object:os.system x",
    "\U0001f600",
    "\ud7ff",
    "x" * 300,
)
NUMBERS = st.integers() | st.floats() | st.sampled_from([0, -1, 2**31, 2**63, 10**400, 1e308, 5e-324])
TEXTS = st.sampled_from([*ODD, *names(), "auto", "cache", "fp32", "lora"]) | st.text(max_size=20)
SCALARS = st.none() | st.booleans() | NUMBERS | TEXTS
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=8,
)
PLACES = [
    *flat(RECIPE),
    "name",
    "method.name",
    "model.adapter",
    "train.epochs",
    "train.nothing",
    "extends",
    "data.eval",
]


def put(recipe: dict[str, Any], place: str, value: Any) -> None:
    """Set a dotted key, lists by their first element."""
    *groups, last = place.replace("[0]", ".0").replace("[1]", ".1").split(".")
    here: Any = recipe
    for group in groups:
        if isinstance(here, list):
            here = here[int(group)] if int(group) < len(here) else {}
        else:
            here = here.setdefault(group, {}) if isinstance(here, dict) else {}
    if isinstance(here, list) and int(last) < len(here):
        here[int(last)] = value
    elif isinstance(here, dict):
        here[last] = value


def outcome_of(path: Path, overrides: list[str]) -> Loaded | RecipeError:
    """Give a checked recipe, or the error whose lines a user sees."""
    try:
        return load(str(path), overrides)
    except RecipeError as error:
        assert error.code == 2
        assert all(line.startswith("dpo: error[2] ") for line in error.lines())
        return error


@CASES
@given(changes=st.lists(st.tuples(st.sampled_from(PLACES), VALUES), min_size=1, max_size=4))
def test_any_recipe_is_checked_or_refused_by_line(tmp_path: Path, changes: list[tuple[str, Any]]) -> None:
    recipe = json.loads(json.dumps(RECIPE))
    for place, value in changes:
        put(recipe, place, value)
    path = tmp_path / "r.yaml"
    path.write_bytes(yaml.safe_dump(recipe, allow_unicode=True).encode("utf-8", "surrogatepass"))

    outcome_of(path, [])


@CASES
@given(overrides=st.lists(st.tuples(st.sampled_from(PLACES) | TEXTS, TEXTS | NUMBERS), max_size=3))
def test_any_override_is_applied_or_refused(tmp_path: Path, overrides: list[tuple[str, Any]]) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(RECIPE))

    outcome_of(path, [f"{key}={value}" for key, value in overrides])


@CASES
@given(
    content=st.binary(max_size=200)
    | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass"))
)
def test_any_bytes_are_refused_as_a_recipe(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "r.yaml"
    path.write_bytes(content)

    assert isinstance(outcome_of(path, []), RecipeError)


FIELDS = (
    "prompt",
    "chosen",
    "rejected",
    "completion",
    "label",
    "messages",
    "text",
    "tools",
    "score_chosen",
    "winner",
)
MESSAGE = st.fixed_dictionaries(
    {},
    optional={
        "role": st.sampled_from(["user", "assistant", "system", "tool", ""]) | SCALARS,
        "content": VALUES,
    },
)
CELLS = (
    VALUES | st.lists(MESSAGE, max_size=4) | st.sampled_from(["yes", "no", "Human: hi\n\nAssistant: hello"])
)
ROWS = st.lists(st.dictionaries(st.sampled_from(FIELDS), CELLS, max_size=5) | CELLS, min_size=1, max_size=6)


@CASES
@given(rows=ROWS, good=st.integers(0, 3), suffix=st.sampled_from([".jsonl", ".json"]))
def test_any_rows_are_taken_or_refused_by_line(
    tmp_path: Path, rows: list[Any], good: int, suffix: str
) -> None:
    pairs = [{"prompt": f"p{i}", "chosen": "yes", "rejected": "no"} for i in range(good)]
    path = tmp_path / f"rows{suffix}"
    whole = [*pairs, *rows]
    text = json.dumps(whole) if suffix == ".json" else "".join(json.dumps(row) + "\n" for row in whole)
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    config = DataConfig(train=[Source(path=str(path))], split=Split(eval=0), cache=str(tmp_path / "cache"))

    try:
        assert isinstance(load_data(config, byte_tokenizer()), Data)
    except (DataError, ModelError, RecipeError) as error:
        assert error.code in (2, 3, 4)
        assert all(line.startswith(f"dpo: error[{error.code}] ") for line in error.lines())


@CASES
@given(
    content=st.binary(max_size=300),
    suffix=st.sampled_from([".jsonl", ".json", ".csv", ".parquet", ".jsonl.gz"]),
)
def test_any_bytes_are_taken_or_refused_as_rows(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"rows{suffix}"
    path.write_bytes(content)
    config = DataConfig(train=[Source(path=str(path))], split=Split(eval=0), cache=str(tmp_path / "cache"))

    try:
        assert isinstance(load_data(config, byte_tokenizer()), Data)
    except (DataError, RecipeError) as error:
        assert error.code in (2, 3)
