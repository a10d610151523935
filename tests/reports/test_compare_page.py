"""The files of a comparison: a page that loads nothing, pictures that say what the tables say, and a line for what is missing."""

from __future__ import annotations

import dataclasses
import json
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from dpo_cli.errors import StorageError
from dpo_cli.evaluate.compare.comparison import Comparison, Entry, compare
from dpo_cli.evaluate.samples.reward_vs_kl import FRONTIER, Point, read_frontier
from dpo_cli.recipe.load import load
from dpo_cli.recipe.schema import Recipe
from dpo_cli.reports.charts.chart import Chart, Intervals
from dpo_cli.reports.compare_charts import pictures_of
from dpo_cli.reports.compare_page import publish
from dpo_cli.reports.compare_tables import verdicts
from tests.evaluate.compare.test_comparison import entry, seeded
from tests.pages.checks import text_of_page

HOSTILE = "<script>alert(1)</script> $x_1$ & co"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    path = tmp_path_factory.mktemp("recipe") / "r.yaml"
    path.write_text("model: {name: org/model}\ndata: {train: [{path: pairs.jsonl}]}\n")
    return load(str(path)).recipe


@pytest.fixture(scope="module")
def found(recipe: Recipe) -> Comparison:
    points = [Point(0.0, 0.3, "win rate"), Point(4.0, 0.6, "win rate", (3.0, 5.0), (0.5, 0.7))]
    return compare(
        [
            dataclasses.replace(entry(HOSTILE, 1.6, 1, seeded(recipe, 0)), frontier=points),
            entry("alike", 1.5, 2, seeded(recipe, 1)),
            entry("untrained", 0.0, 3, seeded(recipe, 0, beta=0.5)),
        ]
    )


def named(found: Comparison, title: str) -> Chart | Intervals:
    return next(picture for picture in pictures_of(found) if picture.title.startswith(title))


def test_the_page_says_which_is_best_and_what_cannot_be_told_apart(found: Comparison, tmp_path: Path) -> None:
    names, _ = publish(found, tmp_path)
    text = text_of_page((tmp_path / "compare.html").read_bytes())

    assert {"compare.html", "compare.json", "compare.csv", "compare.tex", "compare.svg"} <= set(names)
    assert f"{HOSTILE} is right most often" in text
    assert "but cannot be separated from alike on so many rows; from the others it can" in text
    assert "method.beta 0.1 0.1 0.5" in text and "GiB" in text and "not separable at n = 400" in text
    facts = json.loads((tmp_path / "compare.json").read_text())
    assert facts["runs"][0]["frontier"][1]["reward_ci"] == [0.5, 0.7]
    assert "script" not in {each.tag.rpartition("}")[2] for each in ET.parse(tmp_path / "compare.svg").iter()}


def test_a_difference_that_says_nothing_is_hollow(found: Comparison) -> None:
    picture = named(found, "Models against each other")
    assert isinstance(picture, Intervals)
    rows = picture.rows

    assert [row.is_hollow for row in rows] == [not pair.separable for pair in found.pairs]
    assert {row.is_hollow for row in rows} == {True, False}
    assert [(row.value, row.ends) for row in rows] == [
        (pair.found.difference, pair.found.ci) for pair in found.pairs
    ]


def test_the_frontier_is_drawn_where_somebody_judged_samples(found: Comparison) -> None:
    frontier = named(found, "What distance buys: win rate")
    assert isinstance(frontier, Chart)
    (series,) = frontier.series

    assert (series.x, series.y, series.ends) == ([0.0, 4.0], [0.3, 0.6], [None, (0.5, 0.7)])


def test_distance_is_drawn_only_where_all_have_a_reference(found: Comparison) -> None:
    assert "no KL" in named(found, "Accuracy and how far").x_name
    bare = [
        dataclasses.replace(e.rows, ref_logps=np.full((len(e.rows), 2), np.nan)) for e in found.entries[:1]
    ]
    without = compare([Entry("bare", bare[0], "reward accuracy"), found.entries[1]])

    assert not [picture for picture in pictures_of(without) if "how far" in picture.title]


def test_a_frontier_is_read_and_torn_lines_are_left_out(tmp_path: Path) -> None:
    row = {"kl": 2, "reward": 0.5, "what": "win rate", "kl_ci": [1, 3], "temperature": 1.0, "step": 100}
    lines = [json.dumps(row), "{", "[]", '{"kl": 1}', '{"kl": 1, "reward": "x"}', '{"kl": 1, "reward": NaN}']
    (tmp_path / FRONTIER).write_text("\n".join(lines))

    assert read_frontier(tmp_path / FRONTIER) == [Point(2.0, 0.5, "win rate", (1.0, 3.0))]
    assert read_frontier(tmp_path / "nothing") == []


def test_without_matplotlib_a_line_says_how_to_get_it(
    found: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dpo_cli.reports.compare_page.has_matplotlib", lambda: False)
    names, note = publish(found, tmp_path)

    assert "compare.png" not in names and "compare.svg" in names
    assert note == "no compare.png: PNG needs matplotlib: pip install 'dpo-cli[plots]'"


def test_a_png_is_written_by_matplotlib(found: Comparison, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    names, note = publish(found, tmp_path)

    assert "compare.png" in names and note == ""
    content = (tmp_path / "compare.png").read_bytes()
    assert content.startswith(b"\x89PNG") and len(content) > 20_000


def test_a_folder_that_cannot_be_written_is_named(found: Comparison, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        publish(found, tmp_path / "file")


def test_recipes_are_answered_first_and_many_pairs_alike_are_one_line(recipe: Recipe, tmp_path: Path) -> None:
    runs = [entry(f"a{i}", 1.5, i, seeded(recipe, i)) for i in range(3)]
    runs += [entry(f"b{i}", 1.5, 5 + i, seeded(recipe, i, beta=0.5)) for i in range(3)]
    found = compare([*runs, entry("untrained", 0.0, 9, seeded(recipe, 0, beta=0.9))])
    told = verdicts(found)
    n_separable = sum(pair.separable for pair in found.pairs)

    assert n_separable >= 6, "all of them from the untrained one"
    assert [line.split()[0] for line in told].index("models") == len(found.recipe_pairs) >= 1
    assert len(told) == len(found.recipe_pairs) + n_separable + 1
    assert f"none of the {len(found.pairs) - n_separable} other pairs is separable at n = 400" in told[-1]

    both = compare(runs, {"old": ["a0", "a1", "a2"], "new": ["b0", "b1", "b2"]})
    publish(both, tmp_path)
    assert "seeds and rows so few cannot tell them apart" in text_of_page(
        (tmp_path / "compare.html").read_bytes()
    )
