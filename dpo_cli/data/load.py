"""From the recipe's data group to token groups for training, evaluation and test, with a report."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from dpo_cli.data.adapt import (
    as_kind,
    check_kind,
    check_margins,
    last_turn,
    mismatched,
    pairs_of_ranking,
    strict_ranking,
)
from dpo_cli.data.dataset import Data, DataRow
from dpo_cli.data.detect.parse import parse_rows
from dpo_cli.data.exclude import Drop
from dpo_cli.data.row_notes import Note, Reason
from dpo_cli.data.row_report import Report, SourceReport
from dpo_cli.data.sources.files import read_source
from dpo_cli.data.sources.placed_rows import Problems
from dpo_cli.data.split import copies, none_held_out, pair_key, part_of, prompt_key, swapped_key
from dpo_cli.data.tokenize import token_cache
from dpo_cli.data.tokenize.encode import Encoder
from dpo_cli.data.tokenize.tokenizer import tokenizer_digest
from dpo_cli.data.tokenize.truncate import Encoded
from dpo_cli.errors import DataError
from dpo_cli.metrics.progress import progress
from dpo_cli.types import DataKind, DataNeeds, Example, TokenGroup

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from dpo_cli.recipe.schema import Data as DataConfig
    from dpo_cli.recipe.schema import Source

Role = Literal["train", "eval"]

PAIRS = DataNeeds()


@dataclass
class _Loaded:
    """A source after parsing."""

    role: Role
    source: Source
    examples: list[Example]
    report: SourceReport
    kind: DataKind = "pairs"
    rows: list[DataRow] = field(default_factory=list)


def load_data(data: DataConfig, tokenizer: PreTrainedTokenizerBase, needs: DataNeeds = PAIRS) -> Data:
    """Read, parse, tokenise and split all sources of a recipe; tokenising shows its progress.

    Training rows become what the method trains on. Held-out pairs stay pairs, whatever the method: all are measured by the same figures.

    Args:
        data: the recipe's data group.
        tokenizer: from `load_tokenizer`.
        needs: what the method trains on.

    Raises:
        DataError: files, lines or rows that cannot be used, all at once; no usable rows; a leak with `fail_on_leak`.
        ModelError: no chat template for messages, or one that cannot be used.
    """
    problems = Problems()
    has_template = bool(tokenizer.chat_template)
    sources: list[tuple[Role, str, Source]] = [
        *(("train", f"data.train[{i}]", source) for i, source in enumerate(data.train)),
        *(("eval", f"data.eval[{i}]", source) for i, source in enumerate(data.eval)),
    ]
    loaded = [_parse(role, key, source, has_template, problems) for role, key, source in sources]
    for item, (_, key, _) in zip(loaded, sources, strict=True):
        check_kind(item.source.path, item.kind, key, needs.kind, problems)
        if needs.margins:
            check_margins(item.examples, problems)
    problems.raise_any()
    _encode(loaded, data, Encoder(tokenizer, data, whole_rows=needs.whole_rows), needs.kind)
    for item in loaded:
        item.report.check_usable()
    return _to_training_rows(_deal(loaded, data), needs, data.max_length)


def _parse(role: Role, key: str, source: Source, has_template: bool, problems: Problems) -> _Loaded:
    count = problems.count
    parsed = parse_rows(read_source(source, key, problems), source, key, has_template, problems)
    if parsed is None:
        if problems.count == count:
            raise DataError.of(source.path, "0 usable rows: the file holds none", "check the path")
        return _Loaded(role, source, [], SourceReport(source.path, role, "unknown", 0))
    report = SourceReport(
        source.path, role, parsed.format.name, parsed.rows, unused_columns=parsed.unused_columns
    )
    report.dropped = {str(reason): n for reason, n in parsed.dropped.items() if n}
    report.first = {str(reason): place for reason, place in parsed.first_dropped.items()}
    return _Loaded(role, source, parsed.examples, report, parsed.format.kind)


def _encode(loaded: Sequence[_Loaded], data: DataConfig, encoder: Encoder, kind: DataKind) -> None:
    """Fill in the rows of every source, from the cache where they are known."""
    digest = tokenizer_digest(encoder.tokenizer)
    folder = Path(data.cache) if data.cache else token_cache.default_folder()
    with progress("tokenising", sum(len(item.examples) for item in loaded)) as advance:
        for item in loaded:
            path = folder / f"{token_cache.cache_key(item.examples, digest, data, encoder.whole_rows)}.npz"
            results = token_cache.load(path, item.examples)
            if results is None:
                results = encoder.encode(item.examples, advance)
                token_cache.save(path, results)
            else:
                advance(len(results))
            _keep(item, results, kind)
            _say_why(item, results, encoder)


def _keep(item: _Loaded, results: Sequence[Encoded], kind: DataKind) -> None:
    """Take the usable rows of a source, a ranking as pairs, and count what became of the others."""
    for example, result in zip(item.examples, results, strict=True):
        reason, rows = result.reason, list[DataRow]()
        if result.group is not None:
            rows = _rows(example, result, item.source, kind)
            # Of a ranking that makes no pair, all are rated alike, or too nearly so.
            reason = None if rows else Reason.TIE if item.source.min_gap is None else Reason.SMALL_GAP
        item.report.count(reason and str(reason), result.notes, example.source)
        item.report.made += len(rows)
        item.rows += rows
    item.report.describe([row.group for row in item.rows])


def _say_why(item: _Loaded, results: Sequence[Encoded], encoder: Encoder) -> None:
    """Keep what the template says of the first row that it refuses."""
    for example, result in zip(item.examples, results, strict=True):
        if result.reason is Reason.REFUSED:
            item.report.why[str(result.reason)] = encoder.refusal(example)
            return


def _rows(example: Example, encoded: Encoded, source: Source, kind: DataKind) -> list[DataRow]:
    """Return what a row of a file is trained on: itself, or the pairs of a ranking, which share prompt and keys."""
    group, notes = encoded.group, encoded.notes
    assert group is not None, "a dropped row is trained on by nothing"
    key, ratings, rows = prompt_key(example), example.ratings, list[DataRow]()
    if len(group.completions) < 3 and ratings is None:
        group = replace(group, label=example.label, margin=example.margin)
        return [DataRow(example, group, source.path, key, notes, example)]
    ranking = strict_ranking(group, ratings, source.min_gap) if kind == "rankings" else None
    for better, worse in pairs_of_ranking(len(group.completions), kind, source.pairs):
        gap = None if ratings is None else ratings[better] - ratings[worse]
        same = np.array_equal(group.completions[better], group.completions[worse])
        if same or (gap is not None and (gap == 0 or gap < (source.min_gap or 0))):
            continue
        texts = (example.completions[better], example.completions[worse])
        pair = replace(example, completions=texts, margin=gap, ratings=None)
        ids = group.only([better, worse], margin=gap)
        rows.append(DataRow(pair, ids, source.path, key, notes, example, ranking))
    return rows


def _deal(loaded: Sequence[_Loaded], data: DataConfig) -> Data:
    parts: dict[str, list[DataRow]] = {"train": [], "eval": [], "test": []}
    eval_share, drop = 0.0 if data.eval else data.split.eval, Drop(data.drop)
    for item in loaded:
        for row in item.rows:
            part = (
                "eval"
                if item.role == "eval"
                else part_of(row.prompt_key, eval_share, data.split.test, data.split.seed)
            )
            weight = item.source.weight * row.example.weight
            repeats = copies(pair_key(row.example), weight) if part == "train" else 1
            if part != "train" or drop.keeps(pair_key(row.example)):
                parts[part] += [row] * repeats
    drop.check()
    if not parts["train"]:
        fix = "smaller data.split.eval and data.split.test, or a larger weight"
        raise DataError.of("data.split", "no row is left to train on", fix)
    report = Report([item.report for item in loaded], {name: len(rows) for name, rows in parts.items()})
    report.dealt = [drop.line()] if data.drop else []
    if eval_share and not parts["eval"]:
        report.dealt.append(none_held_out({row.prompt_key for row in parts["train"]}, data.split))
    _audit(report, [row for item in loaded for row in item.rows], parts)
    if report.leaked and data.fail_on_leak:
        what = f"{report.leaked} held-out rows share a prompt with the training rows"
        raise DataError.of("data.eval", what, "remove them, or data.fail_on_leak=false")
    return Data(parts["train"], parts["eval"], parts["test"], report)


def _to_training_rows(dealt: Data, needs: DataNeeds, max_length: int) -> Data:
    """Return the rows as the method trains on them, and their mismatched partners where it needs some; held-out pairs stay as they are."""
    if needs.kind == "pairs":
        return dealt
    rows = [
        replace(row, group=group)
        for row in dealt.train_rows
        for group in as_kind(row.group, needs.kind, row.ranking)
    ]
    if needs.kind == "rankings":
        dealt.report.parts["train"] = len(rows)
    if needs.last_turn:
        return _last_turns(replace(dealt, train_rows=rows))
    partners: list[TokenGroup] = []
    if needs.mismatched:
        groups, prompts = [row.group for row in rows], [row.prompt_key for row in rows]
        partners = mismatched(groups, prompts, max_length)
    return replace(dealt, train_rows=rows, mismatched=partners)


def _last_turns(data: Data) -> Data:
    """Return the rows with only their last answer scored, without those that lost it to truncation; held-out pairs stay as they are.

    Raises:
        DataError: no training row has its last answer.
    """

    def scored(row: DataRow) -> list[DataRow]:
        if len(row.group.completions) > 1:
            return [row]
        return [] if Note.LAST_LOST in row.notes else [replace(row, group=last_turn(row.group))]

    parts = {"train": data.train_rows, "eval": data.eval_rows, "test": data.test_rows}
    kept = {name: [new for row in rows for new in scored(row)] for name, rows in parts.items()}
    if not kept["train"]:
        raise DataError.of(
            "data.max_length", "every row's last answer, the only one to score, is cut away", "a larger one"
        )
    data.report.last_lost = sum(len(rows) - len(kept[name]) for name, rows in parts.items())
    data.report.parts = {name: len(rows) for name, rows in kept.items()}
    return Data(kept["train"], kept["eval"], kept["test"], data.report)


def _audit(report: Report, rows: Sequence[DataRow], parts: dict[str, list[DataRow]]) -> None:
    trained = {row.prompt_key for row in parts["train"]}
    report.leaked = sum(row.prompt_key in trained for row in parts["eval"] + parts["test"])
    pairs, swapped = {pair_key(row.example) for row in rows}, {swapped_key(row.example) for row in rows}
    report.contradictions = len(pairs & swapped) // 2
    stated = {id(row.stated): pair_key(row.stated) for row in rows}
    report.repeated = len(stated) - len(set(stated.values()))


def data_digest(groups: Sequence[TokenGroup]) -> str:
    """Return a digest of groups in their order: token ids and score masks, nothing of files or text."""
    digest = hashlib.blake2b(digest_size=16)
    for group in groups:
        digest.update("/".join(group.keys).encode() + b"\n")
    return digest.hexdigest()
