"""Comparisons of models and recipes whose difference is known, and rows that cannot be compared."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest

from dpo_cli.errors import RecipeError
from dpo_cli.evaluate.compare.comparison import Comparison, Entry, compare
from dpo_cli.evaluate.pairs.pair_rows import PairRows
from dpo_cli.recipe.load import load
from dpo_cli.recipe.schema import Recipe
from dpo_cli.reports.compare_tables import as_csv, as_latex, cells, recipe_lines, verdicts

N = 400


def rows(level: float, seed: int, n: int = N) -> PairRows:
    """Rows of n / 2 prompts; a model of that level is right with P = sigma(level + what it finds of a prompt)."""
    rng = np.random.default_rng(seed)
    hard = np.repeat(np.random.default_rng(99).normal(0, 1, n // 2), 2)
    right = rng.random(n) < 1 / (1 + np.exp(-(level + hard)))
    order = rng.permutation(n)
    text = np.array([f"{i:05}" for i in range(n)], dtype=object)
    made = PairRows(
        key=text,
        set=np.full(n, "one", dtype=object),
        source=np.array([f"pairs.jsonl:{i}" for i in range(n)], dtype=object),
        prompt=np.array([f"{i // 2:05}" for i in range(n)], dtype=object),
        ids=np.stack([text, text], axis=1),
        prompt_tokens=np.full(n, 5),
        tokens=np.full((n, 2), 10),
        logps=np.zeros((n, 2)),
        ref_logps=np.zeros((n, 2)),
        rewards=np.stack([right - 0.5, np.zeros(n)], axis=1),
        tie=np.zeros(n, dtype=bool),
    )
    return made.take(order)


def entry(name: str, level: float, seed: int, recipe: Recipe | None = None) -> Entry:
    return Entry(name, rows(level, seed), "reward accuracy", 0.1, recipe, {"peak_memory_gib": 0.5})


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    path = tmp_path_factory.mktemp("recipe") / "r.yaml"
    path.write_text("model: {name: org/model}\ndata: {train: [{path: pairs.jsonl}]}\n")
    return load(str(path)).recipe


def seeded(recipe: Recipe, seed: int, beta: float = 0.1) -> Recipe:
    method = dataclasses.replace(recipe.method, beta=beta)
    return dataclasses.replace(recipe, method=method, train=dataclasses.replace(recipe.train, seed=seed))


def test_rows_are_paired_by_key_whatever_their_order() -> None:
    found = compare([entry("a", 1.0, 1), entry("b", 1.0, 1), entry("c", 1.0, 2)])
    same = next(pair for pair in found.pairs if {pair.a, pair.b} == {"a", "b"})

    assert (same.found.difference, same.p_adjusted, same.separable) == (0.0, 1.0, False)
    assert [each["name"] for each in found.as_dict()["runs"]] == ["a", "b", "c"]


def test_a_trained_and_an_untrained_model_are_separable_and_it_is_said() -> None:
    found = compare([entry("trained", 1.5, 1), entry("untrained", 0.0, 2)])
    (pair,) = found.as_dict()["pairs"]

    assert {"a", "b", "difference", "ci", "p_value", "separable"} <= set(pair)
    assert pair["separable"] is True and pair["ci"][0] > 0.1
    (line,) = verdicts(found)
    assert "separable at n = 400 pairs over 200 prompts" in line and "not separable" not in line
    assert cells(found)[1][0] == "untrained" and cells(found)[1][3].startswith("-0.2")


def test_models_alike_are_not_separable_at_this_n() -> None:
    (line,) = verdicts(compare([entry("a", 1.0, 1), entry("b", 1.05, 2)]))

    assert "not separable at n = 400 pairs" in line and "takes a difference of about 0.0" in line


def test_models_that_are_right_on_the_same_pairs_have_no_reach_to_name() -> None:
    (line,) = verdicts(compare([entry("a", 1.0, 1), entry("b", 1.0, 1)]))

    assert line.endswith("they are right on the same pairs")


def test_holm_counts_all_pairs_and_a_selected_best_is_named(recipe: Recipe) -> None:
    found = compare([entry(f"r{i}", 1.0 + 0.1 * i, i) for i in range(4)])

    assert len(found.pairs) == 6
    assert all(pair.p_adjusted >= pair.found.p_value for pair in found.pairs)
    assert any("chosen on them" in note for note in found.notes)
    assert "after Holm's correction over 6" in verdicts(found)[0]


def three_seeds(recipe: Recipe, name: str, level: float, beta: float, seed: int = 0) -> list[Entry]:
    return [entry(f"{name}{k}", level, seed + k, seeded(recipe, k, beta)) for k in range(3)]


def test_seeds_of_one_recipe_are_pooled_and_recipes_told_apart(recipe: Recipe) -> None:
    found = compare([*three_seeds(recipe, "a", 2.0, 0.1), *three_seeds(recipe, "b", 0.5, 0.5, seed=10)])

    assert {name: len(runs) for name, runs in found.groups.items()} == {"a0": 3, "b0": 3}
    (pair,) = found.recipe_pairs
    assert pair.separable and pair.found.difference > 0.15
    assert any(line.startswith("recipes  a0 against b0") for line in verdicts(found))
    assert "method.beta: 0.1 | 0.1 | 0.1 | 0.5 | 0.5 | 0.5" in recipe_lines(found)
    assert found.recipe_diff["train.seed"] == {"a0": 0, "a1": 1, "a2": 2, "b0": 0, "b1": 1, "b2": 2}


def test_one_recipe_in_two_named_groups_is_not_separable(recipe: Recipe) -> None:
    runs = [*three_seeds(recipe, "a", 1.0, 0.1), *three_seeds(recipe, "b", 1.0, 0.1, seed=10)]
    groups = {"one": ["a0", "a1", "a2"], "two": ["b0", "b1", "b2"]}
    (pair,) = compare(runs, groups).recipe_pairs

    assert (pair.a, pair.b, pair.separable) == ("one", "two", False)
    assert list(compare(runs).groups) == ["a0"]  # left alone they are one recipe
    with pytest.raises(RecipeError, match="'c9' is none of the runs"):
        compare(runs, {"one": ["c9"]})
    for groups in ({"one": ["a0", "a0"], "two": ["b0", "b1"]}, {"one": ["a0", "a1"], "two": ["a0", "b1"]}):
        with pytest.raises(RecipeError, match="'a0' stands there twice"):
            compare(runs, groups)


def test_a_run_trained_again_with_its_seed_is_no_other_draw_of_its_recipe(recipe: Recipe) -> None:
    again = dataclasses.replace(entry("a0-2", 2.0, 0), recipe=seeded(recipe, 0))
    found = compare([*three_seeds(recipe, "a", 2.0, 0.1), again, entry("b", 0.5, 10, seeded(recipe, 0, 0.5))])

    assert {name: len(runs) for name, runs in found.groups.items()} == {"a0": 3, "b": 1}
    assert any(note.startswith("a0-2: the recipe and the seed") for note in found.notes)
    assert len(found.pairs) == 10  # as a model it is compared like any other


def test_one_seed_each_says_nothing_of_recipes(recipe: Recipe) -> None:
    found = compare([entry("a", 1.0, 1, seeded(recipe, 0)), entry("b", 0.0, 2, seeded(recipe, 0, 0.5))])

    assert found.recipe_pairs == [] and found.pairs[0].separable
    assert any("repeat with train.seed" in note for note in found.notes)


def test_other_rows_other_figures_and_one_alone_are_refused() -> None:
    one, fewer = entry("one", 1.0, 1), entry("fewer", 1.0, 2)
    fewer = dataclasses.replace(fewer, rows=fewer.rows.take(fewer.rows.key != "00007"))
    with pytest.raises(
        RecipeError, match=r"399 rows, one has 400; 1 only in one \(first: pairs.jsonl:7\)"
    ) as told:
        compare([one, fewer, dataclasses.replace(one, name="likelihood", what="log-prob accuracy")])
    assert told.value.code == 2 and len(told.value.problems) == 2
    assert told.value.problems[1].fix == "measure all of them without reference.source=none"
    with pytest.raises(RecipeError, match="nothing to be compared with"):
        compare([one])


def test_the_same_texts_in_other_ids_are_compared_and_named() -> None:
    other = entry("other", 1.0, 2)
    other.rows.ids[:] = "x"

    assert any(
        note.startswith("other: the same texts") for note in compare([entry("a", 1.0, 1), other]).notes
    )


def test_tables_hold_what_was_found(tmp_path: Path) -> None:
    found: Comparison = compare([entry("run_a", 1.5, 1), entry("b", 0.0, 2)])
    (first, _) = csv.DictReader(as_csv(found).splitlines())

    assert first["name"] == "run_a" and float(first["peak_memory_gib"]) == 0.5
    assert float(first["ci_low"]) < float(first["accuracy"]) < float(first["ci_high"])
    latex = as_latex(found)
    assert latex.startswith(r"\begin{tabular}") and r"run\_a & 0." in latex and r"\bottomrule" in latex
