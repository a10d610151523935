"""Several models on the same rows: which differ, and whether their recipes do."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np

from dpo_cli.errors import Problem, RecipeError
from dpo_cli.evaluate.compare.significance import Difference, holm, models_differ, recipes_differ
from dpo_cli.evaluate.intervals import LEVEL
from dpo_cli.evaluate.pairs.pair_metrics import drift, share
from dpo_cli.evaluate.pairs.pair_rows import PairRows
from dpo_cli.evaluate.samples.reward_vs_kl import Point
from dpo_cli.recipe.compare import different
from dpo_cli.recipe.schema import Recipe

SEED = "train.seed"
MISSING = "(no recipe)"


@dataclass(frozen=True, eq=False)
class Entry:
    """One model's results."""

    name: str
    rows: PairRows
    what: str
    """Name of the figure: reward accuracy, or log-prob accuracy."""
    ece: float | None = None
    recipe: Recipe | None = None
    """None where it is no run of ours."""
    cost: Mapping[str, float | None] = field(default_factory=dict)
    frontier: Sequence[Point] = ()
    """Reward against KL, where its samples were judged."""


@dataclass(frozen=True)
class Pair:
    """Two models, or two recipes, held against each other."""

    a: str
    b: str
    found: Difference
    p_adjusted: float | None
    """Holm's, over all pairs of the level; None where nothing was tested."""

    @property
    def separable(self) -> bool:
        """Whether they differ, with 5% risk over all pairs of the level together."""
        return self.p_adjusted is not None and self.p_adjusted < 1 - LEVEL

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        found = dataclasses.asdict(self.found)
        return {"a": self.a, "b": self.b, **found, "p_adjusted": self.p_adjusted, "separable": self.separable}


@dataclass(frozen=True, eq=False)
class Comparison:
    """What `dpo compare` has to say."""

    entries: list[Entry]
    pairs: list[Pair]
    """Of models."""
    groups: dict[str, list[Entry]]
    """Recipes: runs that differ in their seed only."""
    recipe_pairs: list[Pair]
    recipe_diff: dict[str, dict[str, Any]]
    """Key -> run -> value, of the keys that are not the same in all runs."""
    notes: list[str]

    @property
    def n(self) -> int:
        """Rows."""
        return len(self.entries[0].rows)

    @property
    def best(self) -> Entry:
        """The entry with the highest accuracy."""
        return max(self.entries, key=lambda entry: entry.rows.correct.mean())

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "what": self.entries[0].what,
            "n": self.n,
            "prompts": len(set(self.entries[0].rows.prompt.tolist())),
            "best": self.best.name,
            "runs": [_entry_dict(entry) for entry in self.entries],
            "pairs": [pair.as_dict() for pair in self.pairs],
            "recipes": {
                "groups": [
                    {"name": name, "runs": [each.name for each in runs], "accuracy": _pooled(runs)}
                    for name, runs in self.groups.items()
                ],
                "pairs": [pair.as_dict() for pair in self.recipe_pairs],
            },
            "recipe_diff": self.recipe_diff,
            "notes": self.notes,
        }


def compare(entries: Sequence[Entry], groups: Mapping[str, Sequence[str]] | None = None) -> Comparison:
    """Compare models on the same rows, and their recipes where seeds were repeated.

    Args:
        entries: at least two, with distinct names.
        groups: name of a recipe -> names of its runs; None: runs whose recipes differ in `train.seed` only belong together, one a seed.

    Raises:
        RecipeError: fewer than two, other rows or other figures in one than in another, a group of unknown runs, or a run in two places.
    """
    check_same(entries)
    keys = sorted(entries[0].rows.key.tolist())
    aligned = [dataclasses.replace(entry, rows=entry.rows.aligned(keys)) for entry in entries]
    prompts = aligned[0].rows.prompt.tolist()
    correct = {entry.name: entry.rows.correct for entry in aligned}
    pairs = _adjusted(
        [
            (a.name, b.name, models_differ(correct[a.name], correct[b.name], prompts))
            for a, b in combinations(aligned, 2)
        ]
    )
    grouped = _grouped(aligned, groups)
    runs = {name: np.stack([correct[each.name] for each in members]) for name, members in grouped.items()}
    repeated = any(len(members) > 1 for members in grouped.values()) and len(grouped) > 1
    recipe_pairs = _adjusted(
        [(a, b, recipes_differ(runs[a], runs[b], prompts)) for a, b in combinations(runs, 2)]
        if repeated
        else []
    )
    found = Comparison(aligned, pairs, grouped, recipe_pairs, _recipe_diff(aligned), [])
    return dataclasses.replace(found, notes=_notes(found, is_grouped_by_seed=groups is None))


def check_same(entries: Sequence[Entry]) -> None:
    """Check that all entries answer one question on the same rows.

    Raises:
        RecipeError: what differs, for each entry that differs from the first.
    """
    if len(entries) < 2:
        raise RecipeError.of("RUN", "one model alone has nothing to be compared with", "dpo compare RUN RUN")
    first, problems = entries[0], []
    sorted_keys = np.sort(first.rows.key)
    for other in entries[1:]:
        if other.what != first.what:
            what = f"its figure is the {other.what}, that of {first.name} the {first.what}"
            fix = "measure all of them without reference.source=none"
            problems.append(Problem(other.name, what, fix))
        if not np.array_equal(np.sort(other.rows.key), sorted_keys):
            problems.append(
                Problem(other.name, _other_rows(first, other), "the same rows for all: data.eval=[...]")
            )
    if problems:
        raise RecipeError(problems)


def _other_rows(first: Entry, other: Entry) -> str:
    """Return how the rows of two entries differ."""
    parts = []
    for one, two in ((other, first), (first, other)):
        alone = ~np.isin(one.rows.key, two.rows.key)
        if alone.any():
            parts.append(f"{alone.sum():,} only in {one.name} (first: {one.rows.source[alone][0]})")
    counts = f"{len(other.rows):,} rows, {first.name} has {len(first.rows):,}"
    return f"other rows: {counts}; {'; '.join(parts) or 'some stand there more often'}"


def _adjusted(found: Sequence[tuple[str, str, Difference]]) -> list[Pair]:
    tested = [difference.p_value for _, _, difference in found if difference.p_value is not None]
    adjusted = iter(holm(tested))
    return [
        Pair(a, b, difference, None if difference.p_value is None else next(adjusted))
        for a, b, difference in found
    ]


def _grouped(entries: Sequence[Entry], groups: Mapping[str, Sequence[str]] | None) -> dict[str, list[Entry]]:
    if groups is not None:
        known = {entry.name: entry for entry in entries}
        named = [name for names in groups.values() for name in names]
        if unknown := [name for name in named if name not in known]:
            what = f"'{unknown[0]}' is none of the runs"
            raise RecipeError.of("--group", what, f"names of {', '.join(known)}")
        if twice := [name for name in known if named.count(name) > 1]:
            what = f"'{twice[0]}' stands there twice: a run is one draw of one recipe"
            raise RecipeError.of("--group", what, "each run once, in one group")
        return {group: [known[name] for name in names] for group, names in groups.items()}
    found: dict[str, list[Entry]] = {}
    for entry in entries:
        if entry.recipe is None:
            continue
        for members in found.values():
            theirs = members[0].recipe
            assert theirs is not None, "only entries with a recipe are grouped"
            if set(different(theirs, entry.recipe)) <= {SEED}:
                if entry.recipe.train.seed not in _seeds(members):
                    members.append(entry)
                break
        else:
            found[entry.name] = [entry]
    return found


def _seeds(runs: Sequence[Entry]) -> list[int]:
    return [entry.recipe.train.seed for entry in runs if entry.recipe is not None]


def _recipe_diff(entries: Sequence[Entry]) -> dict[str, dict[str, Any]]:
    runs = [(entry, entry.recipe) for entry in entries if entry.recipe is not None]
    if not runs:
        return {}
    values: dict[str, dict[str, Any]] = {}
    first = runs[0][1]
    for entry, recipe in runs[1:]:
        for key, (ours, theirs) in different(first, recipe).items():
            values.setdefault(key, {each.name: ours for each, _ in runs})[entry.name] = theirs
    return values


def _notes(found: Comparison, *, is_grouped_by_seed: bool) -> list[str]:
    """Return what must not be read into the figures."""
    first, notes = found.entries[0], []
    other_ids = [e.name for e in found.entries if not np.array_equal(e.rows.ids, first.rows.ids)]
    if other_ids:
        notes.append(
            f"{', '.join(other_ids)}: the same texts as other token ids than {first.name} (tokenizer, template or data.max_length)"
        )
    if len(found.entries) > 2:
        notes.append(
            f"'{found.best.name}' is the best on these rows because it was chosen on them: its accuracy is too high by that;"
            " measure it once on others (dpo eval --split test)"
        )
    grouped = {entry.name for runs in found.groups.values() for entry in runs}
    again = [e.name for e in found.entries if is_grouped_by_seed and e.recipe and e.name not in grouped]
    if again:
        notes.append(
            f"{', '.join(again)}: the recipe and the seed of another of the runs; a seed counts once for its recipe"
        )
    if len(found.groups) > 1 and not found.recipe_pairs:
        notes.append(
            "models are compared, not recipes: with one seed each nobody knows what another seed gives; repeat with train.seed=1,2"
        )
    return notes


def _entry_dict(entry: Entry) -> dict[str, Any]:
    accuracy = share(entry.rows)
    return {
        "name": entry.name,
        "accuracy": accuracy.accuracy,
        "ci": accuracy.ci,
        "ties": int(entry.rows.tie.sum()),
        "margin": float(entry.rows.margin.mean()),
        "ece": entry.ece,
        "drift": drift(entry.rows),
        "cost": dict(entry.cost),
        "frontier": [dataclasses.asdict(point) for point in entry.frontier],
    }


def _pooled(runs: Sequence[Entry]) -> float:
    return float(np.mean([entry.rows.correct.mean() for entry in runs]))
