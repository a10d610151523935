"""Questions about a file, each with the readings that keep all of its data, and refusals that name what is missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NoReturn

from dpo_cli.data import formats
from dpo_cli.data.detect.columns.names import names_in
from dpo_cli.data.detect.columns.unread import Unread
from dpo_cli.data.detect.infer.candidate import Candidate, asked, examples, settings_of, shown
from dpo_cli.data.detect.infer.file import File
from dpo_cli.data.detect.infer.question import Option, Question
from dpo_cli.data.detect.label_words import MEANINGS, counted
from dpo_cli.data.settings import Setting, as_options
from dpo_cli.errors import DataError, UserError
from dpo_cli.recipe.schema import Source
from dpo_cli.types import Example

SHOWN = 64
"""Gathered examples that are made to show what a reading makes of them."""
_LIKELY = {"label": "neither", "winner": "tie"}
"""Column -> what a word that nobody knows is most often."""


def ask(file: File, what: str, readings: Sequence[tuple[str, Source]]) -> NoReturn:
    """Ask which of some readings is right, each shown on the first row of which they make different things.

    Args:
        file: the file.
        what: what is not certain.
        readings: what each means, and its source; those that cannot read the rows are left out.

    Raises:
        Question: always, but for
        UserError: no reading can read the rows.
    """
    options: list[tuple[str, Source, list[Example | None]]] = []
    failed: UserError | None = None
    seen: dict[object, bool] = {}
    for means, source in readings:
        try:
            means, source = _whole(file, means, source)
            made = _made(file, source, seen)
        except UserError as error:
            failed = failed or error
            continue
        if made is not None:
            options.append((means, source, made))
    if not options:
        raise failed or DataError.of(file.given.path, what, "--column NAME=COLUMN says what a column is")
    views = _seen([made for _, _, made in options])
    lines = [file.line(settings_of(source, file.given)) for _, source, _ in options]
    raise Question(
        file.given.path,
        what,
        [Option(means, text, line) for (means, _, _), text, line in zip(options, views, lines, strict=True)],
    )


def _made(file: File, source: Source, seen: dict[object, bool]) -> list[Example | None] | None:
    """Return what a reading makes of the sampled rows; None where it keeps no row of the file.

    Args:
        file: the file.
        source: the reading.
        seen: readings that were checked on all rows -> whether they keep any. One that reads the same columns and knows the same words
            keeps the same rows: a check of 100,000 takes seconds.

    Raises:
        UserError: rows that it cannot read.
    """
    if source.gather != "rows":
        parsed = file.parsed(source, keep=SHOWN)
        return list(parsed.examples) or None
    words = frozenset(word for words in source.labels.values() for word in words)
    key = (source.format, tuple(sorted(source.columns.items())), words, tuple(source.ignore))
    if key not in seen:
        parsed = file.parsed(source)
        seen[key] = parsed.rows > parsed.dropped.total()
    return examples(source, file.profile) if seen[key] else None


def _whole(file: File, means: str, source: Source) -> tuple[str, Source]:
    """Return a reading that leaves nothing to ask: columns of context are read before the prompt, others are named as of no use."""
    left = file.left(source)
    names = []
    for each in left:
        path = _context(file, each.column) if each.is_context else None
        if path and _has_prompt(file, source):
            source = _with_context(source, path)
            names.append(each.column)
    rest = [each.column for each in file.left(source)]
    notes = [_read_before(names)] if names else []
    notes += [f"{', '.join(map(repr, rest))} {'do' if len(rest) > 1 else 'does'} not matter"] if rest else []
    return "; ".join([means, *notes]), replace(source, ignore=[*source.ignore, *rest])


def _has_prompt(file: File, source: Source) -> bool:
    """Return whether a reading has a prompt of its own, not one that is within the answers."""
    return bool(source.columns.get("prompt", "prompt" if "prompt" in file.names else ""))


def _with_context(source: Source, path: str) -> Source:
    columns = {**source.columns, "prompt": f"{path} + {source.columns.get('prompt', 'prompt')}"}
    return replace(source, columns=columns)


def _read_before(names: Sequence[str]) -> str:
    are = "are" if len(names) > 1 else "is"
    return f"{', '.join(map(repr, names))} {are} read before the prompt"


def _seen(made: Sequence[Sequence[Example | None]]) -> list[str]:
    """Return what each reading makes of the first row of which they make different things: other answers, or else other prompts."""
    if not all(made):
        return [""] * len(made)
    if len({len(each) for each in made}) > 1:  # rows that are gathered are fewer
        return [shown(next(one for one in each if one)) if any(each) else "" for each in made]
    rows = list(zip(*made, strict=True))
    for view in (shown, asked):
        for each in rows:
            texts = [view(one) for one in each if one]
            if len(texts) == len(each) and len(set(texts)) > 1:
                return texts
    most = max(rows, key=lambda each: len([one for one in each if one]), default=())
    return [shown(one) if one else "leaves this row out" for one in most] or [""] * len(made)


def ask_about(
    file: File, chosen: Candidate, found: Sequence[Candidate], doubtful: Sequence[Unread]
) -> NoReturn:
    """Ask what the columns are that a reading leaves out.

    Raises:
        Question: see `ask`.
    """
    names = [each.column for each in doubtful]
    options: list[tuple[str, Source]] = []
    for one in found:
        if one is not chosen and one.is_whole and any(file.reads(one, name) for name in names):
            source = one.applied(file.given)
            rest = [each.column for each in file.unread(source) if each.is_doubtful]
            options.append(
                (one.means or f"read as {one.format}", replace(source, ignore=[*source.ignore, *rest]))
            )
    source = chosen.applied(file.given)
    joined, read = source, list[str]()
    for each in doubtful:
        path = _context(file, each.column) if each.is_context else None
        if path and _has_prompt(file, source):
            joined = _with_context(joined, path)
            read.append(each.column)
    if read:
        rest = [name for name in names if name not in read]
        options.append((_read_before(read), replace(joined, ignore=[*source.ignore, *rest])))
    do = "do" if len(names) > 1 else "does"
    means = f"{', '.join(map(repr, names))} {do} not matter"
    options.append((means, replace(source, ignore=[*source.ignore, *names])))
    what = "; ".join(f"{each.column!r} {each.why}" for each in doubtful)
    them = "them" if len(names) > 1 else "it"
    ask(file, f"{what}, and read as {chosen.format} the rows leave {them} out", options)


def _context(file: File, top: str) -> str | None:
    """Return where a column has its text or turns."""
    kinds = ("text", "turns", "exchanges")
    columns = file.profile.columns.values()
    parts = [each for each in columns if top in (each.top, each.path) and each.kind in kinds]
    return parts[0].path if len(parts) == 1 else None


def unknown_words(file: File, chosen: Candidate) -> NoReturn:
    """Refuse a column with words that nobody could place.

    Raises:
        DataError: always.
    """
    column = next(name for name in MEANINGS if name in chosen.columns)
    path = chosen.columns[column]
    words = Counter({text: file.profile.words_of(path)[text] for text in chosen.unknown})
    what = f"{path!r} holds words that are not understood: {counted(words)}"
    open_ones = [meaning for meaning in MEANINGS[column] if meaning not in chosen.labels]
    likely = [Setting(f"labels.{[*open_ones, _LIKELY[column]][0]}", chosen.unknown[0])]
    fix = file.line(likely)
    if not (chosen.labels and len(chosen.unknown) == 1):
        fix = f"for each --label MEANING=WORD ({', '.join(MEANINGS[column])}), as in {as_options(likely)}"
    raise DataError.of(file.given.path, what, fix)


def refuse_without_prompt(file: File, found: Sequence[Candidate]) -> NoReturn:
    """Refuse a file whose answers have no prompt.

    Raises:
        DataError: always.
    """
    names = ", ".join(sorted({name for each in found for name in each.columns if name}))
    what = f"no column for the prompt of {found[0].format} ({names}); found {shortened(file.names)}"
    raise DataError.of(file.given.path, what, "--column prompt=NAME")


def refuse(file: File) -> NoReturn:
    """Refuse a file that has no known layout: what the nearest one lacks.

    Raises:
        DataError: always.
    """
    given, columns = file.given, shortened(file.names)
    if given.format != "auto":
        layout = formats.get(given.format)
        lacking = [name for name in layout.columns if name not in file.names and name not in given.columns]
        fix = " ".join(f"--column {name}=NAME" for name in lacking)
        what = f"no column for {', '.join(lacking)} of {layout.name}; found {columns}"
        raise DataError.of(given.path, what, fix)
    known = {name for top in file.names for name in names_in(top)}
    half = [name for name in ("chosen", "rejected") if name in known]
    if half:
        other = "rejected" if half == ["chosen"] else "chosen"
        what = f"no column for {other} of pairs; found {columns}"
        raise DataError.of(given.path, what, f"--column {other}=NAME")
    what = f"no column has a known name (a table's first line holds them); found {columns}"
    raise DataError.of(given.path, what, "--column prompt=NAME --column chosen=NAME --column rejected=NAME")


def shortened(columns: Iterable[str]) -> list[str]:
    """List column names for a message; where a header is missing they are as long as texts."""
    return sorted(name if len(name) <= 40 else f"{name[:40]}..." for name in columns)
