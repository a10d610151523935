"""One file under what is stated of it: what a reading makes of its rows, and what it leaves unread."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from dpo_cli.data import formats
from dpo_cli.data.detect.columns.profile import Profile
from dpo_cli.data.detect.columns.unread import Unread, unread
from dpo_cli.data.detect.fields import Path, Step, field_of
from dpo_cli.data.detect.infer.answers import candidates
from dpo_cli.data.detect.infer.candidate import Candidate, agree, examples
from dpo_cli.data.detect.infer.prompts import completed
from dpo_cli.data.detect.parse import Parsed, parse_rows
from dpo_cli.data.detect.reading import ignored, named_fields, used_columns, used_paths
from dpo_cli.data.settings import Setting, as_options
from dpo_cli.data.sources.placed_rows import PlacedRow, Problems
from dpo_cli.errors import DataError
from dpo_cli.recipe.schema import Source

KEY = "data.train[0]"


@dataclass
class File:
    """One file, and what is stated of it."""

    given: Source
    profile: Profile
    rows: Iterable[PlacedRow]
    command: Sequence[str]
    """What was typed, for the lines that a question offers."""

    @cached_property
    def names(self) -> frozenset[str]:
        """The file's columns."""
        return frozenset(self.profile.words)

    @cached_property
    def all_candidates(self) -> list[Candidate]:
        """Every reading of the file, whatever is stated."""
        found = candidates(self.profile, {})
        return [each for one in found for each in completed(one, self.profile, {})]

    def line(self, settings: Sequence[Setting]) -> str:
        """Return the whole command, with settings as options."""
        return " ".join([shlex.join(self.command), as_options(settings)]).strip()

    def parsed(self, source: Source, keep: int = 0) -> Parsed:
        """Return what a source makes of all rows; no more than `keep` of them are held.

        Raises:
            UserError: rows that it cannot read.
        """
        problems = Problems()
        doubtful = [each.column for each in self.unread(source) if each.is_doubtful]
        source = replace(source, ignore=[*source.ignore, *doubtful])
        self._check_lengths(source)
        parsed = parse_rows(self.rows, source, KEY, True, problems, keep, self.line)
        problems.raise_any()
        if parsed is None:
            what = f"gathered by {source.gather} the rows give no prompt with answers"
            raise DataError.of(self.given.path, what, "--gather rows reads each by itself")
        return parsed

    def _check_lengths(self, source: Source) -> None:
        """Check that no list of which items are named by their place has more items: these would be lost.

        Raises:
            DataError: one has.
        """
        places: dict[tuple[str, tuple[Step, ...], bool], int] = {}
        for path in (path for each in named_fields(source, self.names)[0].values() for path in each.paths):
            at = next((i for i, step in enumerate(path.steps) if isinstance(step, int)), None)
            if at is not None:
                key = (path.column, path.steps[:at], path.is_json)
                places[key] = max(places.get(key, 0), int(path.steps[at] or 0))
        for row, place in self.rows if places and source.gather == "rows" else ():
            for (column, steps, is_json), last in places.items():
                found = Path(column, steps, is_json).read(row)
                if isinstance(found, list) and len(found) > last + 1:
                    what = f"{column!r} has {len(found)} items here, and only {last + 1} would be read"
                    raise DataError.of(place, what, "--column completions=PATH[] reads all of a list")

    def reads(self, candidate: Candidate, column: str) -> bool:
        """Return whether a reading reads a column of the file."""
        paths = (path for path in candidate.columns.values() if path)
        return any(column in field_of(path, self.names).columns for path in paths)

    def unread(self, source: Source) -> list[Unread]:
        """Return the columns that a source leaves unread, each with the reason why that is harmless or not."""
        layout = formats.get(source.format)
        used = used_columns(source, layout, self.names)
        paths = used_paths(source, self.names)
        return unread(self.profile, used, ignored(source), layout.name, paths)

    def doubtful(self, chosen: Candidate, found: Sequence[Candidate]) -> list[Unread]:
        """Return the columns that a reading leaves out and that may matter.

        A column by which another reading chooses the same answers in all sampled rows is not one of them.
        """
        source = chosen.applied(self.given)
        left = [each for each in self.unread(source) if each.is_doubtful]
        if not left or chosen.gather != "rows":
            return left
        mine, blank = examples(source, self.profile), Source(path=self.given.path)
        rivals = [(each, each.applied(self.given)) for each in found]
        rivals += [(each, each.applied(blank)) for each in self.all_candidates]
        return [
            each
            for each in left
            if each.is_context
            or not any(
                agree(mine, examples(rival, self.profile))
                for candidate, rival in rivals
                if candidate.is_whole and candidate.gather == "rows" and self.reads(candidate, each.column)
            )
        ]

    def left(self, source: Source) -> list[Unread]:
        """Return the columns that may matter and that a whole source leaves out."""
        return self.doubtful(Candidate.of(source), ())
