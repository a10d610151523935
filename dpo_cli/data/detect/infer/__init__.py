"""Recognise what a file of preferences holds: layout, columns, words, direction. For people to confirm, not for training.

A reading is taken where names and values leave one; where they leave several, or what is left out may be a preference or context, it asks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from dpo_cli.data import formats
from dpo_cli.data.detect import layouts
from dpo_cli.data.detect.columns.profile import MOST, Profile, look_at
from dpo_cli.data.detect.fields import field_of
from dpo_cli.data.detect.infer.answers import candidates, restricted
from dpo_cli.data.detect.infer.ask import (
    ask,
    ask_about,
    refuse,
    refuse_without_prompt,
    shortened,
    unknown_words,
)
from dpo_cli.data.detect.infer.candidate import Candidate, agree, examples
from dpo_cli.data.detect.infer.file import KEY, File
from dpo_cli.data.detect.infer.inferred import Inferred
from dpo_cli.data.detect.infer.prompts import completed
from dpo_cli.data.detect.label_words import MEANINGS, read_labels, word
from dpo_cli.data.detect.parse import Parsed
from dpo_cli.data.detect.reading import check_names, used_columns
from dpo_cli.data.sources.files import read_source
from dpo_cli.data.sources.placed_rows import Problems
from dpo_cli.data.tokenize.turns import role_of, spelled_roles
from dpo_cli.errors import DataError
from dpo_cli.recipe.schema import Source

__all__ = ["Inferred", "infer"]


def infer(given: Source, command: Sequence[str] = ()) -> Inferred:
    """Return what the file of a source holds; what the source states already is taken as it is.

    Args:
        given: the file, and what is known of it.
        command: what was typed, for the lines that a question offers to paste.

    Raises:
        Question: several readings, or one that is not certain.
        DataError: lines or rows that cannot be read, no layout, unknown label words.
        RecipeError: a stated format, column or label that does not exist.
    """
    problems = Problems()
    check_names(given.columns, KEY)
    read_labels(given.labels, KEY)
    rows = read_source(given, KEY, problems)
    profile = look_at(rows)
    problems.raise_any()
    if not profile.n:
        raise DataError.of(given.path, "0 usable rows: the file holds none", "check the path")
    _check_stated(given, profile)
    file = File(given, profile, rows, command or ("dpo", "init", given.path))
    known = _known_layouts(file)
    if any(file.left(layout.applied(given)) for layout in known):
        known = []  # the rows have more than the layout: they are looked at as any others are
    if len(known) > 1:
        what = f"the rows have the layout of {known[0].sets[0]}, which can be read in {len(known)} ways"
        ask(file, what, [(layout.means, layout.applied(given)) for layout in known])
    chosen, layout = None, ""
    if known:
        source = known[0].applied(given)
        ignored = [name for name in source.ignore if name in file.names]
        chosen, layout = Candidate.of(replace(source, ignore=ignored)), known[0].sets[0]
    else:
        chosen, layout = _chosen(file), ""
    source = chosen.applied(given)
    return _inferred(file, source, file.parsed(source), layout)


def _check_stated(given: Source, profile: Profile) -> None:
    if given.gather == "tree":
        return  # its columns are those of messages, wherever these are
    for name, text in given.columns.items():
        columns = field_of(text, frozenset(profile.words)).columns if text else []
        if missing := [column for column in columns if column not in profile.words]:
            what = f'no "{missing[0]}"; found {shortened(profile.words)}'
            raise DataError.of(given.path, what, f"--column {name}=NAME")


def _known_layouts(file: File) -> list[layouts.Layout]:
    """Return the published layouts that the rows have; none where anything is stated."""
    given, sample = file.given, file.profile.sample
    if replace(given, path="", ignore=[], skip_null=False) != Source(path=""):
        return []
    found = layouts.matching(sample[0])
    kept = [layout for layout in found if sum(map(layout.is_of, sample)) >= MOST * len(sample)]
    kept = [layout for layout in kept if layout.is_held_by(sample)]
    return [layout for layout in kept if layouts.reads(layout, given, sample)]


def _chosen(file: File) -> Candidate:
    """Return the one reading of a file.

    Raises:
        Question: there are several, or it leaves out what may matter.
        DataError: there is none.
    """
    found = [each for one in _candidates(file) for each in completed(one, file.profile, file.given.columns)]
    if not found:
        refuse(file)
    whole = [each for each in found if each.is_whole]
    if not whole:
        refuse_without_prompt(file, found)
    sure = [each for each in whole if each.is_sure]
    if len(sure) != 1 and not (sure and _all_agree(file, sure)):
        offered = sure or whole
        readings = [(each.means or each.format, each.applied(file.given)) for each in offered]
        ask(file, _why(offered), readings)
    chosen = sure[0]
    if chosen.unknown:
        unknown_words(file, chosen)
    if doubtful := file.doubtful(chosen, found):
        ask_about(file, chosen, found, doubtful)
    return chosen


def _candidates(file: File) -> list[Candidate]:
    """Return the readings that have all that is stated."""
    given = file.given
    found = restricted(candidates(file.profile, given.columns), given)
    if given.format != "auto" and not found:
        layout = formats.get(given.format)
        if all(name in {*file.names, *given.columns} for name in layout.columns):
            own = {name: given.columns.get(name, name) for name in layout.columns}
            return [Candidate(layout.name, own, given.labels, given.better, given.gather)]
    return _with_labels(file, found) if given.labels else found


def _with_labels(file: File, found: Sequence[Candidate]) -> list[Candidate]:
    """Return the readings with the words that are stated: these decide between readings of the same column."""
    given = file.given.labels
    column = next((column for column, known in MEANINGS.items() if known.keys() >= given.keys()), "")
    stated = {word(text): name for name, texts in given.items() for text in texts}
    kept: dict[tuple[str, str], Candidate] = {}
    for each in found:
        if column not in each.columns:
            continue
        guessed = {text: name for name, texts in each.labels.items() for text in texts}
        if _name_all_words(file, each, column):
            guessed = {}
        elif any(guessed.get(text, name) != name for text, name in stated.items()):
            continue
        labels = _merged(given, {text: name for text, name in guessed.items() if text not in stated})
        unknown = tuple(text for text in each.unknown if text not in stated)
        sure = replace(each, labels=labels, unknown=unknown, is_sure=True)
        kept.setdefault((each.format, each.columns[column]), sure)
    return list(kept.values()) or list(found)


def _merged(given: Mapping[str, Sequence[str]], guessed: Mapping[str, str]) -> dict[str, list[str]]:
    labels = {name: list(texts) for name, texts in given.items()}
    for text, name in guessed.items():
        labels.setdefault(name, []).append(text)
    return labels


def _name_all_words(file: File, candidate: Candidate, column: str) -> bool:
    """Return whether the stated words are all that a reading's column holds."""
    words = read_labels(file.given.labels, KEY)
    return all(words.names(text) for text in file.profile.words_of(candidate.columns[column]))


def _all_agree(file: File, sure: Sequence[Candidate]) -> bool:
    if any(each.gather != "rows" for each in sure):
        return False
    first, *others = (examples(each.applied(file.given), file.profile) for each in sure)
    return all(agree(first, other) for other in others)


def _why(offered: Sequence[Candidate]) -> str:
    """Return what has to be chosen between."""
    if len(offered) == 1:
        return offered[0].means or "the rows can be read in one way, which is not certain"
    names = dict.fromkeys(name for each in offered for name in each.columns)
    if any(len({each.columns.get(name) for each in offered}) > 1 for name in names):
        readings = " or ".join(dict.fromkeys(each.format for each in offered))
        return f"the rows can be read in {len(offered)} ways ({readings})"
    judges = (*MEANINGS, "ratings", "rating_a", "rating")
    columns = (each.columns[name] for each in offered for name in judges if name in each.columns)
    column = next(columns, "")
    what = repr(column) if column else "the rows"
    return f"{what} can be read in {len(offered)} ways"


def _inferred(file: File, source: Source, parsed: Parsed, layout: str = "") -> Inferred:
    dropped = {str(reason): n for reason, n in parsed.dropped.items()}
    agreeing = "says what is read, in all sampled rows"
    unused = file.unread(source)
    left = {each.column: agreeing if each.is_doubtful else each.why for each in unused}
    # A recipe says so, since training looks at columns again.
    excused = [each.column for each in unused if each.is_doubtful]
    source = replace(source, ignore=[*source.ignore, *excused])
    kept = parsed.rows - parsed.dropped.total()
    return Inferred(
        source,
        parsed.format,
        parsed.rows,
        kept,
        dropped,
        dict(sorted(left.items())),
        layout,
        _roles(file, source),
    )


def _roles(file: File, source: Source) -> dict[str, str]:
    """Return the words for roles in what is read that are not the templates' own, with the roles they are taken for."""
    used = used_columns(source, formats.get(source.format), file.names)
    values = [
        value for column in file.profile.columns.values() if column.top in used for value in column.given
    ]
    return {word: role_of({"role": word}) for value in values for word in sorted(spelled_roles(value))}
