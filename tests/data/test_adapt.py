"""What a method trains on, made from what a file holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpo_cli.data.adapt import as_kind, count_rows, data_of, mismatched
from dpo_cli.data.dataset import Data
from dpo_cli.data.load import load_data
from dpo_cli.errors import DataError
from dpo_cli.recipe.schema import Source, Split
from dpo_cli.types import DataKind, DataNeeds, TokenGroup
from tests.data.build import config
from tests.fakes import byte_tokenizer, pair_rows, write_jsonl

PAIRS = pair_rows(24)
LABELLED = [
    {"prompt": row["prompt"], "completion": row[side], "label": side == "chosen"}
    for row in PAIRS
    for side in ("chosen", "rejected")
]
TARGETS = [{"prompt": row["prompt"], "completion": row["chosen"]} for row in PAIRS]


def load(
    folder: Path, rows: list[dict[str, object]], kind: DataKind | DataNeeds, share: float = 0.0, **fields: Any
) -> Data:
    path = write_jsonl(folder / "rows.jsonl", rows)
    fields = {"cache": str(folder / "cache"), "split": Split(eval=share), **fields}
    needs = kind if isinstance(kind, DataNeeds) else DataNeeds(kind)
    return load_data(config(train=[Source(path=str(path))], **fields), byte_tokenizer(), needs)


def test_pairs_feed_labelled_and_targets_with_the_same_keys(tmp_path: Path) -> None:
    pairs = load(tmp_path, PAIRS, "pairs").train
    labelled = load(tmp_path, PAIRS, "labelled").train
    targets = load(tmp_path, PAIRS, "targets").train

    assert [group.label for group in labelled] == [True, False] * 24
    assert [group.keys[0] for group in labelled] == [key for group in pairs for key in group.keys]
    assert [group.keys for group in targets] == [group.keys[:1] for group in pairs]
    assert all(group.label is None for group in targets)


def test_labelled_rows_are_what_pairs_become(tmp_path: Path) -> None:
    from_pairs = load(tmp_path / "pairs", PAIRS, "labelled").train
    stated = load(tmp_path / "stated", LABELLED, "labelled").train

    assert [(g.keys, g.label) for g in stated] == [(g.keys, g.label) for g in from_pairs]


def test_mismatched_completions_come_only_where_they_are_asked_for(tmp_path: Path) -> None:
    without, beside = (load(tmp_path, PAIRS, DataNeeds("labelled", mismatched=m)) for m in (False, True))

    assert without.mismatched == []
    assert len(beside.mismatched) == len(beside.train) == len(without.train) == 48


def test_targets_are_what_pairs_become(tmp_path: Path) -> None:
    from_pairs = load(tmp_path / "pairs", PAIRS, "targets").train
    stated = load(tmp_path / "stated", TARGETS, "targets").train

    assert [g.keys for g in stated] == [g.keys for g in from_pairs]


@pytest.mark.parametrize("kind", ["labelled", "targets"])
def test_held_out_pairs_stay_pairs(tmp_path: Path, kind: DataKind) -> None:
    data = load(tmp_path, PAIRS, kind, share=0.3)

    assert data.eval
    assert all(len(group.completions) == 2 for group in data.eval)
    assert not {row.prompt_key for row in data.eval_rows} & {row.prompt_key for row in data.train_rows}


@pytest.mark.parametrize(
    ("rows", "kind", "name"),
    [
        (LABELLED, "pairs", "kto"),
        (TARGETS, "pairs", "sft"),
        (TARGETS, "labelled", "sft"),
        (LABELLED, "targets", "kto"),
    ],
)
def test_rows_of_another_kind_are_refused_with_both(
    tmp_path: Path, rows: list[dict[str, object]], kind: DataKind, name: str
) -> None:
    told = rf"data\.train\[0\]\.path: .* holds .*, the method takes .* Fix: method\.name={name}, or"
    with pytest.raises(DataError, match=told):
        load(tmp_path, rows, kind)


def conversation(*turns: tuple[str, str]) -> dict[str, object]:
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


TURNS = (("user", "a"), ("assistant", "first"), ("user", "b"), ("assistant", "second"))
TALK = conversation(*TURNS)
LAST = DataNeeds("targets", last_turn=True)


def scored_text(group: TokenGroup) -> str:
    return byte_tokenizer().decode(group.completions[0][group.masks[0]])


def test_a_conversation_is_scored_in_all_its_assistant_turns(tmp_path: Path) -> None:
    (group,) = load(tmp_path, [TALK], "targets").train

    assert scored_text(group) == "first<|im_end|>second<|im_end|>"


def test_with_the_last_turn_alone_what_comes_before_it_is_context(tmp_path: Path) -> None:
    before = load(tmp_path, [TALK], "targets").train
    (group,) = load(tmp_path, [TALK], LAST).train
    after = load(tmp_path, [TALK], "targets").train  # both read the same tokens, kept once

    assert scored_text(group) == "second<|im_end|>"
    assert np.array_equal(group.completions[0], before[0].completions[0])
    assert group.keys != before[0].keys
    assert [g.keys for g in after] == [g.keys for g in before]
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_turns_of_tools_and_of_one_role_in_a_row_end_where_the_last_answer_opens(tmp_path: Path) -> None:
    rows = [
        conversation(
            ("user", "a"), ("assistant", "look"), ("tool", "42"), ("assistant", "one"), ("assistant", "two")
        ),
        conversation(("user", "a"), ("assistant", "only")),
    ]

    assert [scored_text(g) for g in load(tmp_path, rows, LAST).train] == ["two<|im_end|>", "only<|im_end|>"]


@pytest.mark.parametrize(("room", "wanted"), [(0, None), (3, "sec"), (7, "second<|im_end|>")])
def test_a_row_whose_last_answer_is_cut_away_is_not_trained_on_an_earlier_one(
    tmp_path: Path, room: int, wanted: str | None
) -> None:
    (whole,) = load(tmp_path, [TALK], LAST).train
    n = len(whole.prompt) + int(np.flatnonzero(whole.masks[0])[0]) + room
    short = conversation(*TURNS[:2])
    data = load(tmp_path, [TALK, short], LAST, max_length=n)
    told = "1 row lost the last answer, the only one to score, to data.max_length: not used"

    assert [scored_text(g) for g in data.train] == [*([wanted] if wanted else []), "first<|im_end|>"]
    assert data.report.parts["train"] == len(data.train)
    assert (told in data.report.warnings()) == (wanted is None)
    everything = load(tmp_path, [TALK, short], "targets", max_length=n)
    assert len(everything.train) == 2
    assert everything.report.last_lost == 0
    if wanted is None:
        with pytest.raises(DataError, match="every row's last answer"):
            load(tmp_path, [TALK], LAST, max_length=n)


def test_held_out_conversations_are_measured_as_they_are_trained_and_pairs_as_ever(tmp_path: Path) -> None:
    talks = [conversation(("user", str(i)), *TURNS[1:]) for i in range(40)]
    data = load(tmp_path / "talks", talks, LAST, share=0.4)
    pairs = [
        {
            "prompt": [{"role": "user", "content": str(i)}],
            "chosen": TALK["messages"][1:],
            "rejected": [{"role": "assistant", "content": "no"}],
        }
        for i in range(40)
    ]
    last, every = (load(tmp_path / "pairs", pairs, needs, share=0.4) for needs in (LAST, "targets"))

    assert data.eval
    assert {scored_text(g) for g in [*data.train, *data.eval]} == {"second<|im_end|>"}
    assert {scored_text(g) for g in last.train} == {"second<|im_end|>"}
    assert [g.keys for g in last.eval] == [g.keys for g in every.eval] != []


def test_one_completion_under_both_labels_is_a_contradiction(tmp_path: Path) -> None:
    both = [*LABELLED[:4], {**LABELLED[0], "label": False}]

    assert load(tmp_path, both, "labelled").report.contradictions == 1


@pytest.mark.parametrize("label", ["yes", 2, None, 0.5])
def test_labels_are_not_guessed_at(tmp_path: Path, label: object) -> None:
    rows = [*LABELLED[:4], {**LABELLED[0], "label": label}]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    data = config(
        train=[Source(path=str(path), format="labelled")], cache=str(tmp_path), split=Split(eval=0.0)
    )

    with pytest.raises(DataError, match=r"rows\.jsonl:5: .*label"):
        load_data(data, byte_tokenizer(), DataNeeds("labelled"))


def group(prompt: list[int], ids: list[int]) -> TokenGroup:
    return TokenGroup(
        np.array(prompt, np.int32), (np.array(ids, np.int32),), (np.ones(len(ids), bool),), label=True
    )


def test_a_partner_has_another_prompt_and_follows_from_the_rows_alone() -> None:
    rng = np.random.default_rng(0)
    prompts = [int(p) for p in rng.integers(0, 6, 40)]
    groups = [group([p + 1], rng.integers(9, 99, 4).tolist()) for p in prompts]
    partners = mismatched(groups, [str(p) for p in prompts], 64)
    of = {g.keys: m.keys for g, m in zip(groups, partners, strict=True)}
    completions = {
        p: {g.completions[0].tobytes() for g, q in zip(groups, prompts, strict=True) if q == p}
        for p in prompts
    }

    for p, own, partner in zip(prompts, groups, partners, strict=True):
        assert partner.prompt.tolist() == own.prompt.tolist()
        assert partner.completions[0].tobytes() not in completions[p]
        assert any(partner.completions[0].tobytes() in completions[q] for q in set(prompts) - {p})
    shuffled = rng.permutation(40)
    again = mismatched([groups[i] for i in shuffled], [str(prompts[i]) for i in shuffled], 64)
    assert {groups[i].keys: m.keys for i, m in zip(shuffled, again, strict=True)} == of


def test_a_partner_is_cut_to_the_room_its_prompt_leaves() -> None:
    short, long = group([1], [2] * 9), group([3] * 5, [4])

    (_, partner) = mismatched([short, long], ["a", "b"], 8)

    assert partner.completions[0].tolist() == [2, 2, 2]


def test_alone_with_one_prompt_a_row_keeps_its_own_completion() -> None:
    groups = [group([1], [2]), group([1], [3])]

    assert [m.completions[0].tolist() for m in mismatched(groups, ["a", "a"], 9)] == [[2], [3]]


def test_a_pair_is_left_alone_for_a_method_of_pairs() -> None:
    pair = TokenGroup(np.array([1], np.int32), (np.array([2]), np.array([3])), (np.ones(1, bool),) * 2)

    assert as_kind(pair, "pairs") == [pair]


def test_rows_are_counted_by_what_the_data_say_whatever_the_method_takes(tmp_path: Path) -> None:
    thumbs = [*LABELLED[:6], {**LABELLED[7], "prompt": "another"}]
    pairs = write_jsonl(tmp_path / "pairs.jsonl", PAIRS)
    labelled = write_jsonl(tmp_path / "labelled.jsonl", thumbs)
    data = config(
        train=[Source(path=str(pairs), weight=2.0), Source(path=str(labelled))],
        cache=str(tmp_path / "cache"),
        split=Split(eval=0.0),
    )
    rows = count_rows(load_data(data, byte_tokenizer(), DataNeeds("labelled")).train_rows)

    assert (rows.pairs, rows.wanted, rows.unwanted, rows.targets) == (24, 3, 4, 0)
    assert rows.prompts_with_both == 3


def test_targets_are_counted_and_answers_measured_by_their_scored_tokens(tmp_path: Path) -> None:
    rows = count_rows(load(tmp_path, [{"prompt": "a", "completion": "four"}] * 3, "targets").train_rows)

    assert (rows.targets, rows.labelled, rows.pairs) == (3, 0, 0)
    assert rows.tokens == len("four") + 1


def test_what_a_method_takes_is_said_in_words() -> None:
    assert [data_of(kind) for kind in ("pairs", "labelled", "targets")] == [
        "pairs",
        "labelled or pairs",
        "answers or pairs",
    ]
