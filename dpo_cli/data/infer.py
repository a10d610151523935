"""Recognise what a file of preferences holds: layout, column names, words for labels. For people to confirm, not for training."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from dpo_cli.data import formats
from dpo_cli.data.detect import Reading, check_names
from dpo_cli.data.formats._base import NUMBER_COLUMNS, SIDE_COLUMNS, Format, SkipRow, is_label
from dpo_cli.data.formats.winner import WORDS
from dpo_cli.data.names import columns_for, may_order
from dpo_cli.data.parse import parse_rows
from dpo_cli.data.profile import MANY, Profile, look_at
from dpo_cli.data.read import read_source
from dpo_cli.data.rows import Problems
from dpo_cli.data.words import (
    MEANINGS,
    Labels,
    UnknownWord,
    as_number,
    counted,
    guess_labels,
    guess_winner,
    read_labels,
    told,
    word,
)
from dpo_cli.errors import DataError, Problem
from dpo_cli.recipe.schema import Source

FITTING = 0.9
"""Share of the sampled rows that must have a layout for it to be the file's; the others are told row by row."""
_FIXES = {"label": "neither", "winner": "tie"}


@dataclass(frozen=True)
class Inferred:
    """What a file holds, as a source that states all of it."""

    source: Source
    format: Format
    rows: int
    kept: int
    dropped: dict[str, int]
    """Rows left out, by reason."""
    unused: list[str]
    """Columns that nothing reads."""

    def lines(self) -> list[str]:
        """Say it in words, one fact a line."""
        facts = [f"{self.source.path}: {self.rows:,} rows, read as {self.format.name}: {self.format.fits}"]
        facts += [f"  {name} is the column {column!r}" for name, column in self.source.columns.items()]
        if self.source.labels:
            facts.append(f"  words: {told(self.source.labels)}")
        facts += [f"  left out {n:,}: {reason}" for reason, n in self.dropped.items()]
        if self.unused:
            facts.append(f"  not used: {', '.join(self.unused)}")
        return facts


@dataclass(frozen=True)
class _Candidate:
    """A layout that a file may have."""

    format: Format
    columns: dict[str, str]
    """What the format calls it -> what the file calls it, also where the names are the same."""
    labels: Labels
    uses: frozenset[str]
    """Columns of the file that it would read, those in doubt included."""
    fits: bool
    """Whether nearly all sampled rows have it."""
    doubt: Problem | None
    """What keeps it from being sure: two columns for one thing, or words that mean nothing."""


def infer(given: Source) -> Inferred:
    """Give what the file of a source holds; what the source states already is taken as it is.

    Raises:
        DataError: lines or rows that cannot be read, no layout or several fit, two columns for one thing, unknown label words.
        RecipeError: a stated format, column or label that does not exist.
    """
    problems, key = Problems(), "data.train[0]"
    check_names(given.columns, key)
    rows = read_source(given, key, problems)
    profile = look_at(rows)
    problems.raise_any()
    if not profile.n:
        raise DataError.of(given.path, "0 usable rows: the file holds none", "check the path")
    for name, column in given.columns.items():
        if column not in profile.words:
            what = f'no "{column}"; found {_shortened(profile.words)}'
            raise DataError.of(given.path, what, f"--column {name}=NAME")
    chosen = _choose(profile, given)
    renamed = {name: column for name, column in chosen.columns.items() if name != column}
    labels = {name: list(words) for name, words in chosen.labels.items()}
    source = replace(given, format=chosen.format.name, columns=renamed, labels=labels)
    parsed = parse_rows(rows, source, key, True, problems, keep=0)
    problems.raise_any()
    assert parsed is not None, "a file with rows gives some"
    if not chosen.fits and given.format == "auto":
        what = f"no layout fits, {chosen.format.name} comes nearest; found {_shortened(profile.words)}"
        raise DataError.of(given.path, what, f"--format {chosen.format.name} if that is what the rows are")
    dropped = {str(reason): n for reason, n in parsed.dropped.items()}
    unused = sorted(profile.words.keys() - chosen.uses - {""})
    return Inferred(source, parsed.format, parsed.rows, parsed.rows - sum(dropped.values()), dropped, unused)


def _choose(profile: Profile, given: Source) -> _Candidate:
    """Give the layout that reads most of the file's columns; refuse to guess between two that read different ones."""
    names = formats.names() if given.format == "auto" else [formats.get(given.format).name]
    complete = [c for name in names if (c := _candidate(formats.get(name), profile, given)) is not None]
    found = [c for c in complete if c.fits]
    found = [c for c in found if not any(c.uses < other.uses for other in found)]
    if len(found) > 1:
        told = " or ".join(f"{c.format.name} ({', '.join(sorted(c.uses))})" for c in found)
        raise DataError.of(given.path, f"the rows can be read as {told}", f"--format {found[0].format.name}")
    # Where no layout fits, what its rows break is told by the one that has all its columns and reads most of them.
    chosen = max(found or complete, key=lambda c: len(c.uses), default=None)
    if chosen is None:
        raise _no_layout([formats.get(name) for name in names], profile, given)
    if chosen.doubt is not None:
        raise DataError([chosen.doubt])
    return chosen


def _no_layout(layouts: Sequence[Format], profile: Profile, given: Source) -> DataError:
    """Build the error that names what the nearest layout lacks."""
    lacking = [
        (layout, [name for name in layout.columns if not _options(name, profile, given, ())])
        for layout in layouts
    ]
    near = [(layout, names) for layout, names in lacking if len(names) < len(layout.columns)]
    if not near and given.format == "auto":
        what = (
            f"no column has a known name (a table's first line holds them); found {_shortened(profile.words)}"
        )
        fix = "--column prompt=NAME --column chosen=NAME --column rejected=NAME"
        return DataError([Problem(given.path, what, fix)])
    layout, names = min(near or lacking, key=lambda it: (len(it[1]), -len(it[0].columns), not it[0].is_text))
    what = f"no column for {', '.join(names)} of {layout.name}; found {_shortened(profile.words)}"
    return DataError([Problem(given.path, what, " ".join(f"--column {name}=NAME" for name in names))])


def _candidate(layout: Format, profile: Profile, given: Source) -> _Candidate | None:
    """Give how a layout would read the file; None where it lacks a column."""
    columns, doubt, in_doubt = dict[str, str](), None, set[str]()
    for name in (*layout.columns, *SIDE_COLUMNS):
        options = _options(name, profile, given, columns.values())
        if name in SIDE_COLUMNS and name in profile.words and name not in given.columns:
            options = [name]  # read under its own name whatever it holds
        if name in layout.columns and not options:
            return None
        if len(options) == 1 or name in layout.columns:
            columns[name] = options[0]
        if len(options) > 1 and name in layout.columns:
            in_doubt |= set(options)
            told = " or ".join(repr(option) for option in options)
            doubt = doubt or Problem(given.path, f"the {name} may be {told}", _column(name, options[0]))
    rival = _rival(columns, profile) if layout.name == "ranking" and given.format == "auto" else None
    if rival is not None:
        what = f"the first of {columns['completions']!r} would be the best, but {rival!r} may say otherwise"
        fix = "--format ranking if the first is the best"
        if isinstance(profile.sample[0][rival], list):
            fix += f", {_column('ratings', rival)} if the one with the highest number is"
        doubt = doubt or Problem(given.path, what, fix)
    labels, unknown = _labels(columns, profile, given)
    if unknown:
        words = Counter({text: profile.words[columns[_judging(columns)]][text] for text in unknown})
        what = f"'{columns[_judging(columns)]}' holds words that are not understood: {counted(words)}"
        doubt = doubt or Problem(given.path, what, _naming(unknown, labels, _judging(columns)))
    uses = frozenset(in_doubt | set(columns.values()))
    return _Candidate(layout, columns, labels, uses, _fits(layout, columns, labels, profile), doubt)


def _rival(columns: Mapping[str, str], profile: Profile) -> str | None:
    """Give a column that may rank the completions in another order than they stand in."""
    answers = columns["completions"]
    rivals = (
        column
        for column in sorted(profile.words.keys() - columns.values())
        if all(may_order(column, row.get(column), row.get(answers)) for row in profile.sample)
    )
    return next(rivals, None)


def _column(name: str, column: str) -> str:
    """Give the option that names a column, as a shell takes it."""
    return f"--column {shlex.quote(f'{name}={column}')}"


def _naming(unknown: Sequence[str], labels: Labels, name: str) -> str:
    """Give the options that name words: of a single odd one what nothing else means, of several only how."""
    open_ones = [meaning for meaning in MEANINGS[name] if meaning not in labels]
    likely = shlex.quote(f"{[*open_ones, _FIXES[name]][0]}={unknown[0]}")
    if labels and len(unknown) == 1:
        return f"--label {likely}"
    return f"for each --label MEANING=WORD ({', '.join(MEANINGS[name])}), as in --label {likely}"


def _options(name: str, profile: Profile, given: Source, taken: Iterable[str]) -> list[str]:
    """Give the columns that may be what a format calls `name`, the likeliest first."""
    if name in given.columns:
        return [given.columns[name]]
    free = profile.words.keys() - set(taken) - set(given.columns.values())
    return [column for column in columns_for(name, free) if _is_plausible(name, column, profile)]


def _is_plausible(name: str, column: str, profile: Profile) -> bool:
    """Say whether a column's values are of the kind that `name` has: words, numbers, or text and messages."""
    values = [row.get(column) for row in profile.sample]
    if name in ("rating_a", "rating_b", *NUMBER_COLUMNS):
        return all(value is None or as_number(word(value)) is not None or value == "" for value in values)
    if name in MEANINGS:
        # A rating that somebody left out is still a rating: taken for no label, all answers would be imitated, the worst too.
        return len(profile.words[column]) < MANY or not guess_labels(map(word, values))[1]
    return sum(isinstance(value, str | list | dict) for value in values) >= FITTING * len(values)


def _judging(columns: Mapping[str, str]) -> str:
    """Give which of the columns holds words, if any."""
    return next((name for name in MEANINGS if name in columns), "")


def _labels(columns: Mapping[str, str], profile: Profile, given: Source) -> tuple[Labels, list[str]]:
    """Give the `labels` for a layout's words, the given ones among them, and the words that nobody could place; none where a
    format takes them as they are.
    """
    name = _judging(columns)
    if not name:
        return {}, []
    values = [row.get(columns[name]) for row in profile.sample]
    words = profile.words[columns[name]]
    own = {"label": {"true", "false", "1", "0"}, "winner": set(WORDS)}[name]
    if words.keys() <= own and all(
        is_label(value) if name == "label" else value in WORDS for value in values
    ):
        return given.labels, []
    stated = read_labels(given.labels, "FILE")
    # Of very many words the first ones alone are known, which in a sorted file are the lowest; the sample is of all rows.
    drawn = map(word, values) if len(words) >= MANY else ()
    rest = [text for text in dict.fromkeys([*words, *drawn]) if not stated.names(text)]
    if name == "label":
        guessed, unknown = guess_labels(rest)
    else:
        told_apart = [text for key in ("a", "b") for text in given.labels.get(key, ())]
        guessed, unknown = guess_winner(
            rest, (columns.get("answer_a", ""), columns.get("answer_b", "")), told_apart
        )
    both = {key: [*given.labels.get(key, []), *guessed.get(key, [])] for key in MEANINGS[name]}
    return {key: words for key, words in both.items() if words}, unknown


def _fits(layout: Format, columns: Mapping[str, str], labels: Labels, profile: Profile) -> bool:
    reading = Reading(layout, True, columns, read_labels(labels, "FILE"))
    fitting = judged = 0
    for row in profile.sample:
        try:
            values = reading.read(row)
        except (SkipRow, UnknownWord):
            continue
        judged += 1
        fitting += layout.matches(values)
    return fitting >= FITTING * judged


def _shortened(columns: Iterable[str]) -> list[str]:
    """List column names for a message; where a header is missing they are as long as texts."""
    return sorted(name if len(name) <= 40 else f"{name[:40]}..." for name in columns)
