"""Look for what is wrong with preferences as data: counted, with places, and what would be left without it."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dpo_cli.data.audit.consistency import (
    Keyed,
    Places,
    contradictions,
    cycles,
    duplicates,
    keyed,
    label_conflicts,
    leaks,
    preferences,
)
from dpo_cli.data.audit.shares import shares_of
from dpo_cli.data.audit.text_checks import (
    CONTROL,
    Spelled,
    contents,
    nearly_same,
    template_fault,
)
from dpo_cli.data.detect.parse import is_blank
from dpo_cli.data.row_notes import Reason
from dpo_cli.data.tokenize.tokenizer import Vocabulary
from dpo_cli.metrics.progress import progress
from dpo_cli.types import Example, Text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from dpo_cli.data.dataset import Data

SHOWN = 3
FAULTS = (
    Reason.IDENTICAL,
    Reason.EMPTY,
    Reason.PROMPTS_DIFFER,
    Reason.PROMPT_ENDS_WITH_ANSWER,
    Reason.CONTROL_TEXT,
    Reason.PROMPT_REWRITTEN,
    Reason.REFUSED,
    Reason.SAME_AFTER_CUT,
    Reason.NOTHING_SCORED,
    Reason.NO_COMMON_PROMPT,
    Reason.ALONE,
)
"""Reasons to drop a row that its file is to blame for; ties, lengths and what the recipe filters are not."""


@dataclass(frozen=True)
class Finding:
    """One kind of thing that is wrong with rows."""

    name: str
    says: str
    """What it is, after the count."""
    cases: Sequence[Places]
    """Places of the rows of each case."""
    unwanted: Callable[[Places], Sequence[str]] = lambda places: places
    """Which of a case's rows a clean set leaves out."""
    total: int | None = None
    """Cases in all, where not all places are known."""

    @property
    def count(self) -> int:
        """Cases in all."""
        return len(self.cases) if self.total is None else self.total

    @property
    def line(self) -> str:
        """The finding in words, with the first places."""
        shown = "; ".join(_told(places) for places in self.cases[:SHOWN])
        return f"{self.count:,} {self.says} (first: {shown}{'; ...' if self.count > SHOWN else ''})"


@dataclass
class Audit:
    """What was found in a set of rows."""

    kept: set[str]
    """Places of the rows that could be used at all."""
    findings: list[Finding]
    shares: dict[str, float]
    """Shares of rows or prompts, 0 to 1, whether or not they deserve a word."""
    notes: list[str]
    """What the shares say, where they deserve a word."""

    @property
    def rows(self) -> int:
        """Rows that were looked at."""
        return len(self.kept)

    @property
    def faults(self) -> int:
        """Cases that are wrong."""
        return sum(finding.count for finding in self.findings)

    @property
    def unwanted(self) -> set[str]:
        """Places of rows that a clean set leaves out."""
        return {
            place for finding in self.findings for case in finding.cases for place in finding.unwanted(case)
        }

    @property
    def template_marks(self) -> list[str]:
        """The line on marks of a template and control tokens in texts; none where there are none."""
        return [finding.line for finding in self.findings if finding.name == "template"]

    def warnings(self) -> list[str]:
        """Return what deserves a look, in words."""
        return [*(finding.line for finding in self.findings), *self.notes]

    def lines(self) -> list[str]:
        """Say it all in words, one finding a line, the shares last."""
        shares = ", ".join(f"{name} {share:.0%}" for name, share in self.shares.items())
        return [*self.warnings(), f"shares: {shares}"]

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        findings = [
            {
                "name": f.name,
                "count": f.count,
                "says": f.says,
                "first": [list(c) for c in f.cases[:SHOWN]],
            }
            for f in self.findings
        ]
        facts = {"rows": self.rows, "faults": self.faults, "findings": findings}
        return {**facts, "shares": self.shares, "notes": self.notes}


def audit(
    train: Sequence[Example],
    held_out: Sequence[Example],
    spelled: Spelled = lambda text: (),
    meant: Collection[str] = (),
) -> Audit:
    """Return what is wrong within rows and between them.

    Args:
        train: rows that are trained on, each once.
        held_out: rows of evaluation and test.
        spelled: the control tokens that a text spells and that are not meant.
        meant: those that are (`data.control_tokens`).
    """
    examples = [*train, *held_out]
    rows, near, negative, marks = list[Keyed](), dict[str, None](), dict[str, None](), dict[str, str]()
    blank, tokens = dict[str, None](), set[str]()
    with progress("auditing", len(examples)) as advance:
        for i, example in enumerate(examples):
            rows.append(keyed(example, is_held_out=i >= len(train)))
            if any(
                _hardly_differ(example.completions[j], example.completions[k]) for j, k in rows[-1].better
            ):
                near[example.source] = None
            if example.margin is not None and example.margin < 0:
                negative[example.source] = None
            is_judged = len(example.completions) > 1 or example.label is not None
            if is_judged and (not example.prompt or is_blank(example.prompt)):
                blank[example.source] = None
            if mark := template_fault(example, spelled, meant):
                marks[example.source] = mark
                tokens |= _tokens(example, spelled)
            advance(1)
    within = [
        Finding("nearly_same", "pairs differ in hardly a word", _alone(near)),
        Finding(
            "scores", "pairs have a chosen completion that scores below the rejected one", _alone(negative)
        ),
        Finding("empty_prompt", "rows judge answers to an empty prompt", _alone(blank)),
        _template(marks, tokens),
    ]
    found = [finding for finding in (*_between(rows), *within) if finding.cases]
    return Audit({row.place for row in rows}, found, *shares_of(examples, rows))


def audit_data(data: Data, tokenizer: PreTrainedTokenizerBase, meant: Collection[str] = ()) -> Audit:
    """Return what is wrong with a recipe's rows, those included that were dropped when they were read or tokenised.

    Args:
        data: the rows.
        tokenizer: from `load_tokenizer`.
        meant: the recipe's `data.control_tokens`.
    """
    # A row of a file stands in an epoch once for each pass, each of its completions, and each of its pairs.
    train = {id(row.stated): row.stated for row in data.train_rows}
    held_out = {id(row.stated): row.stated for row in (*data.eval_rows, *data.test_rows)}
    spelled = Vocabulary(tokenizer, meant).spelled
    found = audit([*train.values()], [*held_out.values()], spelled, meant)
    for source in data.report.sources:
        found.findings[:0] = dropped(source.dropped, source.first)
    return found


def dropped(counts: Mapping[str, int], first: Mapping[str, str]) -> list[Finding]:
    """Return the findings for rows that were dropped because something is wrong with them, from counts and first places."""
    return [
        Finding(reason.name.lower(), f"rows dropped: {reason}", [(first[reason],)], total=counts[reason])
        for reason in FAULTS
        if counts.get(reason)
    ]


def _hardly_differ(better: Text, worse: Text) -> bool:
    """Return whether a preference turns on hardly a word; of equal texts in a ranking none is preferred."""
    return better != worse and nearly_same(better, worse)


def _between(rows: Sequence[Keyed]) -> list[Finding]:
    stated = preferences(rows)
    opposed = [*contradictions(stated), *label_conflicts(rows)]
    return [
        Finding("duplicates", "rows repeat another", duplicates(rows), lambda places: places[:1]),
        Finding("contradictions", "preferences or labels are contradicted by another row", opposed),
        Finding("cycles", "sets of preferences go in a circle", cycles(stated)),
        Finding(
            "leaks", "held-out rows share a prompt with training rows", leaks(rows), lambda places: places[1:]
        ),
    ]


def _tokens(example: Example, spelled: Spelled) -> set[str]:
    texts = [text for part in (example.prompt, *example.completions) for text in contents(part)]
    return {token for text in texts for token in spelled(text)}


def _template(marks: Mapping[str, str], tokens: Collection[str]) -> Finding:
    """Return the finding of rows that spell marks of a template, or control tokens that no template writes and that may be meant."""
    kinds = ", ".join(f"{what}: {n:,}" for what, n in Counter(marks.values()).most_common(4))
    says = f"rows have a mark of a chat template in their text ({kinds})"
    if own := sorted(token for token in tokens if not CONTROL.fullmatch(token)):
        key = shlex.quote(f"data.control_tokens={json.dumps(own, ensure_ascii=False)}")
        says = f"rows spell control tokens or a mark of a chat template ({kinds}); they are read as plain text: {key} where they are meant"
    return Finding("template", says, _alone(marks))


def _alone(places: Iterable[str]) -> list[Places]:
    return [(place,) for place in places]


def _told(places: Places) -> str:
    return places[0] + (f" and {places[1]}" if len(places) > 1 else "")
