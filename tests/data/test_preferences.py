"""What rows say of a preference beside two texts: winners, ratings, rankings, words for labels, gaps and weights."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest

from dpo_cli.data.adapt import pairs_of_ranking
from dpo_cli.data.detect.label_words import guess_labels, guess_winner
from dpo_cli.data.row_notes import Reason
from dpo_cli.errors import DataError, RecipeError
from dpo_cli.recipe.schema import Split
from dpo_cli.types import DataKind, DataNeeds
from tests.data.build import load_rows, parse, turns
from tests.fakes import pair_rows

VOTE = {"prompt": "p", "answer_a": "one", "answer_b": "two"}
THUMB = {"prompt": "p", "completion": "c"}
RANKED = {"format": "ranking"}
RANKING = {"prompt": "p", "completions": ["best", "good", "fair", "worst"]}


def answers(example):
    return tuple(completion[-1]["content"] for completion in example.completions)


def test_the_winner_is_chosen_and_ties_are_counted():
    parsed = parse([{**VOTE, "winner": winner} for winner in ("a", "b", "tie")])
    assert [answers(example) for example in parsed.examples] == [("one", "two"), ("two", "one")]
    assert parsed.dropped == {Reason.TIE: 1}


def test_votes_on_messages_are_read_like_votes_on_text():
    row = {
        "prompt": turns(("user", "p")),
        "answer_a": turns(("assistant", "one")),
        "answer_b": turns(("assistant", "two")),
    }
    (example,) = parse([{name: list(value) for name, value in row.items()} | {"winner": "b"}]).examples
    assert answers(example) == ("two", "one")


def test_labels_translate_the_words_of_a_winner_column():
    rows = [{**VOTE, "winner": winner} for winner in ("model_b", 1, "Tie (bothbad)")]
    labels = {"a": ["1"], "b": ["model_b"], "tie": ["tie (bothbad)"]}
    parsed = parse(rows, labels=labels)
    assert [answers(example) for example in parsed.examples] == [("two", "one"), ("one", "two")]
    assert parsed.dropped == {Reason.TIE: 1}


def test_labels_translate_thumbs_in_words_and_emoji_of_any_tone():
    words = ["Up", " up ", "👍🏽", "down", "👎", "skip"]
    labels = {"wanted": ["up", "👍"], "unwanted": ["down", "👎"], "neither": ["skip"]}
    parsed = parse([{**THUMB, "label": text} for text in words], labels=labels)
    assert [example.label for example in parsed.examples] == [True, True, True, False, False]
    assert parsed.dropped == {Reason.NEITHER: 1}


def test_bounds_sort_ratings_that_are_too_many_to_list():
    rows = [{**THUMB, "stars": stars} for stars in (4.5, "4", 3.9, 1, None)]
    labels = {"wanted": [">=4"], "unwanted": ["<2"], "neither": ["<4", "null"]}
    parsed = parse(rows, labels=labels, columns={"label": "stars"})
    assert [example.label for example in parsed.examples] == [True, True, False]
    assert parsed.dropped == {Reason.NEITHER: 2}


def test_words_without_labels_are_one_line_with_the_key_to_set():
    rows = [{**THUMB, "label": text} for text in ["up"] * 3 + ["down"] * 2 + ["meh"]]
    with pytest.raises(DataError) as error:
        parse(rows)
    assert str(error.value) == (
        'rows.jsonl:1: "label" holds "up" (3), "down" (2), "meh" (1), not true or false. '
        'Fix: data.train[0].labels={wanted: ["up"], unwanted: ["down"], ...: ["meh"]}'
    )
    with pytest.raises(DataError, match=r'"winner" holds "left".*labels=\{a: \["left"\], b: \["right"\]\}'):
        parse([{**VOTE, "winner": "left"}, {**VOTE, "winner": "right"}])


def test_a_word_that_labels_do_not_name_is_one_line_with_its_first_place():
    rows = [{**THUMB, "label": text} for text in ["up", "down", "meh", "meh"]]
    with pytest.raises(DataError) as error:
        parse(rows, labels={"wanted": ["up"], "unwanted": ["down"]})
    assert str(error.value) == (
        'rows.jsonl:3: words that data.train[0].labels does not name: "meh" (2). '
        'Fix: data.train[0].labels.neither=["meh"], or fix them'
    )


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (
            {"good": ["up"]},
            r"\{good\} is not understood. Fix: names of \{wanted, unwanted, neither\} or \{a, b, tie\}",
        ),
        ({"wanted": ["up"], "a": ["1"]}, "is not understood"),
        ({"wanted": ["up"], "unwanted": ["Up"]}, "'Up' stands twice"),
    ],
)
def test_labels_that_mean_nothing_are_refused(labels, told):
    with pytest.raises(RecipeError, match=told):
        parse([{**THUMB, "label": "up"}], labels=labels)


@pytest.mark.parametrize(
    ("words", "labels", "unknown"),
    [
        (["up", "down"], {"wanted": ["up"], "unwanted": ["down"]}, []),
        (["thumbs_up", "thumbs-down"], {"wanted": ["thumbs_up"], "unwanted": ["thumbs-down"]}, []),
        (["👍", "👎", ""], {"wanted": ["👍"], "unwanted": ["👎"], "neither": [""]}, []),
        (["1", "0"], {"wanted": ["1"], "unwanted": ["0"]}, []),
        (["-1", "0", "1"], {"wanted": ["1"], "unwanted": ["-1"], "neither": ["0"]}, []),
        (list("12345"), {"wanted": ["4", "5"], "unwanted": ["1", "2"], "neither": ["3"]}, []),
        (["1", "5", "null"], {"wanted": ["5"], "unwanted": ["1"], "neither": ["null"]}, []),
        ([str(n / 7) for n in range(71)], {"wanted": [">=6"], "unwanted": ["<=4"], "neither": ["<6"]}, []),
        (["like", "meh"], {"wanted": ["like"]}, ["meh"]),
    ],
)
def test_guess_of_label_words(words, labels, unknown):
    assert guess_labels(words) == (labels, unknown)


@pytest.mark.parametrize(
    ("words", "labels", "unknown"),
    [
        (
            ["model_a", "model_b", "tie (bothbad)"],
            {"a": ["model_a"], "b": ["model_b"], "tie": ["tie (bothbad)"]},
            [],
        ),
        (["1", "2"], {"a": ["1"], "b": ["2"]}, []),
        (["0", "1", "tie"], {"a": ["0"], "b": ["1"], "tie": ["tie"]}, []),
        (["1"], {}, ["1"]),
        (["0", "1", "2"], {}, ["0", "1", "2"]),
        (["gpt", "llama"], {"a": ["gpt"], "b": ["llama"]}, []),
    ],
)
def test_guess_of_winner_words(words, labels, unknown):
    assert guess_winner(words, ("gpt", "llama")) == (labels, unknown)


@pytest.mark.parametrize(
    ("fields", "margin"),
    [
        ({"margin": 1.5}, 1.5),
        ({"margin": "0.5", "score_chosen": 9, "score_rejected": 1}, 0.5),
        ({"score_chosen": 8.5, "score_rejected": "6"}, 2.5),
        ({"score_chosen": 8.5}, None),
        ({}, None),
    ],
)
def test_margin_is_stated_or_the_difference_of_two_scores(tmp_path, fields, margin):
    data = load_rows(tmp_path, [{**row, **fields} for row in pair_rows(2)])
    assert [row.example.margin for row in data.train_rows] == [margin] * 2
    assert [group.margin for group in data.train] == [margin] * 2


def test_two_ratings_make_a_pair_with_their_difference():
    rows = [{**VOTE, "rating_a": a, "rating_b": b} for a, b in ((1, 4.5), ("3", "2"), (2, 2))]
    parsed = parse(rows)
    assert [(answers(e), e.margin) for e in parsed.examples] == [(("two", "one"), 3.5), (("one", "two"), 1.0)]
    assert parsed.dropped == {Reason.TIE: 1}


def test_min_gap_leaves_out_pairs_that_are_rated_too_nearly_alike():
    rows = [{**row, "margin": i} for i, row in enumerate(pair_rows(4))]
    parsed = parse(rows, min_gap=2.0)
    assert [example.margin for example in parsed.examples] == [2, 3]
    assert parsed.dropped == {Reason.SMALL_GAP: 2}
    with pytest.raises(DataError, match=r"rows\.jsonl:1: no margin and no scores, which min_gap compares"):
        parse(pair_rows(2), min_gap=2.0)


def test_weight_is_the_passes_of_a_row_times_those_of_its_source(tmp_path):
    rows = [{**row, "weight": weight} for row, weight in zip(pair_rows(4), (0, 1, 2, None), strict=True)]
    data = load_rows(tmp_path, rows, source={"weight": 2.0})
    assert Counter(row.group.source.rpartition(":")[2] for row in data.train_rows) == {"2": 2, "3": 4, "4": 2}
    with pytest.raises(DataError, match=r'train\.jsonl:1: "weight" is -1, not 0 to 1000'):
        load_rows(tmp_path, [{**pair_rows(1)[0], "weight": -1}])


@pytest.mark.parametrize("column", ["margin", "weight", "score_chosen"])
def test_numbers_that_are_none_name_the_line(column):
    with pytest.raises(DataError, match=rf'rows\.jsonl:1: "{column}" is .*, not a number'):
        parse([{**pair_rows(1)[0], column: "much"}, {**pair_rows(1)[0], column: True}])


@pytest.mark.parametrize(
    ("kind", "how", "members"),
    [
        ("pairs", "all", list(itertools.combinations(range(4), 2))),
        ("pairs", "best", [(0, 1), (0, 2), (0, 3)]),
        ("rankings", "all", list(itertools.combinations(range(4), 2))),
        ("labelled", "all", [(0, 3)]),
        ("targets", "all", [(0, 3)]),
    ],
)
def test_pairs_of_a_ranking(kind: DataKind, how, members):
    assert pairs_of_ranking(4, kind, how) == members


def test_a_ranking_is_tokenised_once_and_its_pairs_share_prompt_and_keys(tmp_path):
    data = load_rows(tmp_path, [RANKING, {**RANKING, "prompt": "q"}], source=RANKED)
    assert data.report.sources[0].kept == 2
    assert "  made 12 pairs of rankings" in data.report.lines()
    assert len({key for group in data.train for key in group.keys}) == 8
    assert [answers(row.example) for row in data.train_rows[:3]] == [
        ("best", "good"),
        ("best", "fair"),
        ("best", "worst"),
    ]
    best = load_rows(tmp_path, [RANKING], source={**RANKED, "pairs": "best"})
    assert [answers(row.example)[0] for row in best.train_rows] == ["best"] * 3


def test_a_method_of_rankings_trains_on_each_once_and_is_measured_on_their_pairs(tmp_path):
    rows = [{**RANKING, "prompt": f"q{i}"} for i in range(40)]
    rows += [{**RANKING, "prompt": f"r{i}", "completions": ["a", "b"]} for i in range(3)]
    data = load_rows(tmp_path, rows, source=RANKED, needs=DataNeeds("rankings"), split=Split(eval=0.3))
    assert sorted({len(group.completions) for group in data.train}) == [2, 4]
    assert {len(group.completions) for group in data.eval} == {2}
    held_out = {row.prompt_key for row in data.eval_rows}
    assert len(data.train) + len(held_out) == len(rows), "a ranking is trained on once"
    assert data.report.parts["train"] == len(data.train)


def test_completions_without_a_place_of_their_own_leave_the_ranking(tmp_path):
    row = {"prompt": "p", "completions": ["1", "2", "two", "2", "4"], "ratings": [1, 2, 2, 2, 4]}
    (group,) = load_rows(tmp_path, [row], needs=DataNeeds("rankings")).train
    pairs = load_rows(tmp_path, [row]).train
    four, two, one = group.keys
    assert (four, two) in [pair.keys for pair in pairs] and (two, one) in [pair.keys for pair in pairs]
    (near,) = load_rows(tmp_path, [row], source={"min_gap": 2.0}, needs=DataNeeds("rankings")).train
    assert near.keys == (four, two)


def test_equal_completions_of_a_ranking_make_no_pair_but_keep_the_others(tmp_path):
    data = load_rows(tmp_path, [{"prompt": "p", "completions": ["x", "x", "y"]}], source=RANKED)
    assert [answers(row.example) for row in data.train_rows] == [("x", "y")] * 2


def test_ratings_order_completions_and_give_margins_and_equal_ones_make_no_pair(tmp_path):
    row = {"prompt": "p", "completions": ["low", "high", "high too", "unrated"], "ratings": [1, 5, "5", None]}
    data = load_rows(tmp_path, [row, {"prompt": "q", "completions": ["x", "y"], "ratings": [2, 2]}])
    assert [(answers(r.example), r.group.margin) for r in data.train_rows] == [
        (("high", "low"), 4.0),
        (("high too", "low"), 4.0),
    ]
    assert data.report.sources[0].dropped == {"a tie: no completion is better": 1}


def test_min_gap_holds_for_each_pair_of_a_rated_ranking(tmp_path):
    row = {"prompt": "p", "completions": ["1", "2", "4"], "ratings": [1, 2, 4]}
    data = load_rows(tmp_path, [row], source={"min_gap": 2.0})
    assert [r.group.margin for r in data.train_rows] == [2.0, 3.0]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (
            {"prompt": "p", "completions": ["a", 3], "ratings": [1, 2]},
            '"completions[1]" is a number, not text',
        ),
        (
            {"prompt": "p", "completions": ["a", "b"], "ratings": [1]},
            '"completions" holds 2 answers, but there are 1 ratings',
        ),
        ({"prompt": "p", "completions": ["a", "b"], "ratings": ["x", 1]}, "\"ratings\" is 'x', not a number"),
    ],
)
def test_lists_that_do_not_fit_name_the_line(row, told):
    good = {"prompt": "p", "completions": ["a", "b"], "ratings": [1, 2]}
    with pytest.raises(DataError) as error:
        parse([good, row])
    assert f"rows.jsonl:2: {told}" in str(error.value)


def test_a_single_completion_is_no_ranking():
    assert parse([RANKING, {**RANKING, "completions": ["a"]}], **RANKED).dropped == {Reason.ALONE: 1}
