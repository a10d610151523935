"""Look for what is wrong with preferences as data: counted, with places, and what would be left without it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dpo_cli.data.parse import is_blank
from dpo_cli.data.reasons import Reason
from dpo_cli.data.relations import (
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
from dpo_cli.data.tokenizer import Vocabulary
from dpo_cli.data.wording import contents, is_refusal, nearly_same, opening, template_fault
from dpo_cli.metrics.progress import progress
from dpo_cli.types import Example, Text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from dpo_cli.data.load import Data

SHOWN = 3
ENOUGH = 50
"""Fewer rows say nothing of shares."""
LONGER_WINS = 0.65
REFUSALS = 0.25
SAME_OPENING = 0.3
FEW_PROMPTS = 0.1
FAULTS = (
    Reason.IDENTICAL,
    Reason.EMPTY,
    Reason.PROMPTS_DIFFER,
    Reason.PROMPT_ENDS_WITH_ANSWER,
    Reason.CONTROL_TEXT,
    Reason.PROMPT_REWRITTEN,
    Reason.SAME_AFTER_CUT,
    Reason.NOTHING_SCORED,
    Reason.NO_COMMON_PROMPT,
    Reason.ALONE,
)
"""Reasons to drop a row that its file is to blame for; ties, lengths and what the recipe filters are not."""
SHARES = (
    "longer wins",
    "refusals among wanted completions",
    "refusals among unwanted ones",
    "wanted completions with the commonest opening",
    "different prompts",
)


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

    def warnings(self) -> list[str]:
        """Say what deserves a look, in words."""
        return [*(finding.line for finding in self.findings), *self.notes]

    def lines(self) -> list[str]:
        """Say it all in words, one finding a line, the shares last."""
        told = ", ".join(f"{name} {share:.0%}" for name, share in self.shares.items())
        return [*self.warnings(), f"shares: {told}"]

    def as_dict(self) -> dict[str, Any]:
        """Give it as plain values for JSON."""
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
    spells_control: Callable[[str], bool] = lambda text: False,
) -> Audit:
    """Give what is wrong within rows and between them.

    Args:
        train: rows that are trained on, each once.
        held_out: rows of evaluation and test.
        spells_control: whether a text spells a control token of the model's own tokenizer, where one is known.
    """
    examples = [*train, *held_out]
    rows, near, negative, marks = list[Keyed](), dict[str, None](), dict[str, None](), dict[str, str]()
    blank = dict[str, None]()
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
            if mark := template_fault(example, spells_control):
                marks[example.source] = mark
            advance(1)
    within = [
        Finding("nearly_same", "pairs differ in hardly a word", _alone(near)),
        Finding(
            "scores", "pairs have a chosen completion that scores below the rejected one", _alone(negative)
        ),
        Finding("empty_prompt", "rows judge answers to an empty prompt", _alone(blank)),
        _template(marks),
    ]
    found = [finding for finding in (*_between(rows), *within) if finding.cases]
    return Audit({row.place for row in rows}, found, *_shares(examples, rows))


def audit_data(data: Data, tokenizer: PreTrainedTokenizerBase) -> Audit:
    """Give what is wrong with a recipe's rows, those included that were dropped when they were read or tokenised."""
    # A row of a file stands in an epoch once for each pass, each of its completions, and each of its pairs.
    train = {id(row.stated): row.stated for row in data.train_rows}
    held_out = {id(row.stated): row.stated for row in (*data.eval_rows, *data.test_rows)}
    found = audit([*train.values()], [*held_out.values()], Vocabulary(tokenizer).spells_control)
    for source in data.report.sources:
        found.findings[:0] = dropped(source.dropped, source.first)
    return found


def dropped(counts: Mapping[str, int], first: Mapping[str, str]) -> list[Finding]:
    """Give the findings for rows that were dropped because something is wrong with them, from counts and first places."""
    return [
        Finding(reason.name.lower(), f"rows dropped: {reason}", [(first[reason],)], total=counts[reason])
        for reason in FAULTS
        if counts.get(reason)
    ]


def _hardly_differ(better: Text, worse: Text) -> bool:
    """Say whether a preference turns on hardly a word; of equal texts in a ranking none is preferred."""
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


def _template(marks: Mapping[str, str]) -> Finding:
    kinds = ", ".join(f"{what}: {n:,}" for what, n in Counter(marks.values()).most_common(4))
    says = f"rows have a mark of a chat template in their text ({kinds})"
    return Finding("template", says, _alone(marks))


def _alone(places: Iterable[str]) -> list[Places]:
    return [(place,) for place in places]


def _shares(examples: Sequence[Example], rows: Sequence[Keyed]) -> tuple[dict[str, float], list[str]]:
    """Give shares that tell how a set may mislead, and a note on each that does."""
    pairs = [example for example in examples if len(example.completions) > 1]
    best = [example for example in examples if example.label is not False]
    worst = [e.completions[-1] for e in examples if len(e.completions) > 1 or e.label is False]
    openings = Counter(opening(text[0]) for e in best if (text := contents(e.completions[0])))
    values = (
        _share(map(_longer_wins, pairs)),
        _share(is_refusal(example.completions[0]) for example in best),
        _share(map(is_refusal, worst)),
        max(openings.values(), default=0) / max(len(best), 1),
        len({row.prompt for row in rows}) / max(len(rows), 1),
    )
    shares = dict(zip(SHARES, values, strict=True))
    if not pairs:
        del shares[SHARES[0]]
    if len(examples) < ENOUGH:
        return shares, []
    return shares, _notes(shares, openings.most_common(1)[0][0] if openings else "")


def _notes(shares: Mapping[str, float], commonest: str) -> list[str]:
    longer, wanted, unwanted, same, prompts = (shares.get(name, 0.5) for name in SHARES)
    notes = []
    if not 1 - LONGER_WINS < longer < LONGER_WINS:
        way, share = ("longer", longer) if longer > 0.5 else ("shorter", 1 - longer)
        notes.append(
            f"the {way} completion wins in {share:.0%} of pairs: a model can learn length in place of what was meant"
        )
    if wanted > REFUSALS and wanted > unwanted:
        notes.append(
            f"{wanted:.0%} of the wanted completions refuse: the model will refuse more, also elsewhere"
        )
    if same > SAME_OPENING:
        notes.append(f"{same:.0%} of the wanted completions open with {commonest!r}: the model will, too")
    if prompts < FEW_PROMPTS:
        notes.append(f"only {prompts:.0%} as many different prompts as rows: a narrow set, easy to overfit")
    return notes


def _share(flags: Iterable[float]) -> float:
    values = list(flags)
    return sum(values) / len(values) if values else 0.0


def _longer_wins(example: Example) -> float:
    best, worst = (sum(map(len, contents(example.completions[k]))) for k in (0, -1))
    return (best > worst) + 0.5 * (best == worst)


def _told(places: Places) -> str:
    return places[0] + (f" and {places[1]}" if len(places) > 1 else "")
