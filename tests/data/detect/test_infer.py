"""What `dpo init` makes of files as people have them, and where it asks."""

from __future__ import annotations

import csv
import json

import pytest

from dpo_cli.data import formats
from dpo_cli.data.detect.infer import infer
from dpo_cli.data.detect.infer.question import Question
from dpo_cli.errors import DataError, RecipeError
from dpo_cli.recipe.schema import Source
from tests.data.pasted import pasted
from tests.fakes import write_jsonl

Q, A, B = "Is the sea blue?", "Mostly, yes.", "No idea."


def look(folder, rows, name="rows.jsonl", **given):
    path = folder / name
    if path.suffix == ".jsonl":
        write_jsonl(path, rows)
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0], delimiter="\t" if path.suffix == ".tsv" else ";")
            writer.writeheader()
            writer.writerows(rows)
    return infer(Source(path=str(path), **given))


@pytest.mark.parametrize("name", sorted(set(formats.names()) - {"ranking"}))
def test_a_formats_own_sample_needs_nothing(tmp_path, name):
    found = look(tmp_path, [formats.get(name).sample] * 3)
    assert (found.format.name, found.source.columns, found.source.labels) == (name, {}, {})
    assert (found.rows, found.kept, found.unused) == (3, 3, {})


@pytest.mark.parametrize(
    ("row", "layout", "columns", "labels"),
    [
        (
            {"question": Q, "preferred": A, "Dispreferred": B},
            "pairs",
            {"prompt": "question", "chosen": "preferred", "rejected": "Dispreferred"},
            {},
        ),
        (
            {"instruction": Q, "Response A": A, "Response B": B, "preference": "model_a"},
            "winner",
            {
                "prompt": "instruction",
                "answer_a": "Response A",
                "answer_b": "Response B",
                "winner": "preference",
            },
            {"a": ["model_a"]},
        ),
        (
            {"query": Q, "response": A, "thumb": "👍"},
            "labelled",
            {"prompt": "query", "completion": "response", "label": "thumb"},
            {"wanted": ["👍"]},
        ),
        (
            {"prompt": Q, "answer": A, "rating": 5},
            "labelled",
            {"completion": "answer", "label": "rating"},
            {"wanted": ["5"]},
        ),
        (
            {"prompt": Q, "response_1": A, "response_2": B, "score_1": 5, "score_2": 1},
            "rated_pair",
            {
                "answer_a": "response_1",
                "answer_b": "response_2",
                "rating_a": "score_1",
                "rating_b": "score_2",
            },
            {},
        ),
        (
            {"prompt": Q, "responses": [A, B], "scores": [5, 1]},
            "ratings",
            {"completions": "responses", "ratings": "scores"},
            {},
        ),
        (
            {"conversation": [{"role": "user", "content": Q}, {"role": "assistant", "content": A}]},
            "conversation",
            {"messages": "conversation"},
            {},
        ),
        (
            {"messages": [{"from": "human", "value": Q}, {"from": "gpt", "value": A}], "kto_tag": True},
            "labelled_conversation",
            {"label": "kto_tag"},
            {},
        ),
        ({"document": A}, "plain_text", {"text": "document"}, {}),
        ({"my_chosen": A, "my_rejected": B, "query": Q}, "pairs", {"prompt": "query", "chosen": "my_chosen", "rejected": "my_rejected"}, {}),
        (
            {"info": {"title": "Sea", "post": Q}, "chosen": A, "rejected": B},
            "pairs",
            {"prompt": "info.title + info.post"},
            {},
        ),
        (
            {"question": Q, "answers": [{"text": B, "rank": 2, "id": 1}, {"text": A, "rank": 1, "id": 2}]},
            None,
            {"prompt": "question", "completions": "answers[].text", "ratings": "answers[].rank"},
            {},
        ),
    ],
)  # fmt: skip
def test_names_of_others_are_written_down(tmp_path, row, layout, columns, labels):
    if layout is None:
        (_, first, *_), found = asked(tmp_path, [row] * 4)
        assert "lowest of 'answers[].rank' is the best" in first.means
        assert found[1].source.columns == columns and found[1].source.better == "lower"
        return
    found = look(tmp_path, [row] * 4)
    assert (found.format.name, found.source.columns, found.source.labels) == (layout, columns, labels)
    assert (found.kept, found.unused) == (4, {})


def test_margins_that_the_data_state_are_read_where_they_are_called_so(tmp_path):
    row = {"prompt": Q, "chosen": A, "rejected": B, "chosen_score": 3, "rejected_score": 1}
    found = look(tmp_path, [row, {**row, "chosen_score": 2}])
    assert found.unused["chosen_score"] == "rates answers, which are ranked already"


def test_a_table_of_votes(tmp_path):
    rows = [
        {"": i, "prompt": Q, "answer_a": A, "answer_b": B, "winner": "12t"[i % 3], "id": i} for i in range(9)
    ]
    with pytest.raises(
        DataError,
        match=r"'winner' holds words that are not understood: \"t\" \(3\)\. Fix: dpo init .* --label tie=t$",
    ):
        look(tmp_path, rows, "votes.csv")
    found = look(tmp_path, rows, "votes.csv", labels={"tie": ["t"]})
    assert found.source.labels == {"tie": ["t"], "a": ["1"], "b": ["2"]}
    assert (found.rows, found.kept, found.dropped, found.unused) == (
        9,
        6,
        {"a tie: no completion is better": 3},
        {"id": "numbers"},
    )


def test_a_table_of_thumbs_in_words(tmp_path):
    rows = [{"prompt": Q, "completion": A, "feedback": word} for word in ("yes", "no", "")]
    found = look(tmp_path, rows, "thumbs.tsv")
    assert found.source.labels == {"wanted": ["yes"], "unwanted": ["no"], "neither": [""]}
    assert found.lines()[1:] == [
        "  label is the column 'feedback'",
        '  words: {wanted: ["yes"], unwanted: ["no"], neither: [""]}',
        "  left out 1: neither wanted nor unwanted",
    ]


@pytest.mark.parametrize("spell", [json.dumps, repr], ids=["json", "python"])
def test_messages_spelled_in_cells_of_a_table_are_read(tmp_path, spell):
    row = {
        "prompt": spell([{"role": "user", "content": Q}]),
        "completion": spell([{"role": "assistant", "content": A}]),
        "label": "1",
    }
    found = look(tmp_path, [row, {**row, "label": "0"}], "rows.csv")
    assert found.format.name == "labelled"
    # A table's cells that spell JSON are read as JSON anyway.
    spelled = {"prompt": "json(prompt)", "completion": "json(completion)"}
    assert found.source.columns == ({} if spell is json.dumps else spelled)
    assert found.source.labels == {"wanted": ["1"], "unwanted": ["0"]}


def asked(folder, rows, name="rows.jsonl", **given):
    """What is asked, its options, and what each makes of the file once its line is pasted."""
    with pytest.raises(Question) as question:
        look(folder, rows, name, **given)
    found = [infer(pasted(option.command)) for option in question.value.options]
    return (question.value.problems[0].what, *question.value.options), [None, *found]


@pytest.mark.parametrize(
    ("row", "what", "options"),
    [
        ({"question": Q, "answers": [A, B]}, "the first of 'answers' is the best", [A]),
        (
            {"question": Q, "instruction": "Be brief.", "chosen": A, "rejected": B},
            "the rows can be read in 2 ways (pairs)",
            ["Be brief. Is the sea blue?", "Is the sea blue? Be brief."],
        ),
        (
            {"prompt": Q, "response": A, "rating": 5, "thumb": "up"},
            "the rows can be read in 2 ways (labelled)",
            [A, A],
        ),
        ({"text": A, "label": 1}, "'label' may say which answer is better, and read as plain_text", [A]),
        ({"prompt": Q, "responses": [B, A], "my ranks": [2, 1]}, "(ratings or ranking)", [A, B, B]),
        (
            {"User Message": Q, "context": "We are at sea.", "chosen": A, "rejected": B},
            "the rows can be read in 2 ways (pairs)",
            ["We are at sea. Is the sea blue?", "Is the sea blue? We are at sea."],
        ),
        ({"prompt": Q, "answer_a": A, "answer_b": B, "safer": 1}, "'safer' can be read in 2 ways", [A, B]),
        (
            {"history": Q, "ref A": A, "ref B": B, "score_a": 3, "score_b": 5},
            "the prompt may be 'history'",
            [B],
        ),
        (
            {"prompt": Q, "chosen": A, "second_text": B},
            "no column for rejected of pairs: 'second_text' may be it",
            [A],
        ),
    ],
)
def test_what_may_be_two_things_is_asked_and_each_line_to_paste_keeps_all(tmp_path, row, what, options):
    (said, *offered), found = asked(tmp_path, [row] * 4)
    assert what in said
    assert len(offered) == len(options)
    for option, shown, made in zip(offered, options, found[1:], strict=True):
        assert shown in option.shown
        assert (made.rows, made.kept) == (4, 4)


@pytest.mark.parametrize(
    ("row", "told", "given"),
    [
        (
            {"prompt": Q, "answer_a": A, "answer_b": B, "winner": "not so sure"},
            "Fix: for each --label MEANING=WORD (a, b, tie), as in --label 'a=not so sure'",
            {"labels": {"a": ["not so sure"]}},
        ),
        (
            {"prompt": Q, "chosen": A, "loser": 3},
            "no column for rejected of pairs; found ['chosen', 'loser', 'prompt']. Fix: --column rejected=NAME",
            None,
        ),
        ({"a": 1, "b": 2}, "no column has a known name (a table's first line holds them)", None),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(tmp_path, row, told, given):
    with pytest.raises(DataError) as error:
        look(tmp_path, [row] * 3)
    assert told in str(error.value)
    assert len(error.value.problems) == 1
    if given is not None:
        assert look(tmp_path, [row] * 3, **given).kept == 3


PAIR = {"prompt": Q, "answer_a": A, "answer_b": B}


def test_0_and_1_name_an_answer_only_where_the_answers_are_numbered_so(tmp_path):
    row = {"prompt": Q, "response_0": A, "response_1": B}
    found = look(tmp_path, [{**row, "preferred_id": n} for n in (0, 1)])
    assert (found.source.columns["winner"], found.source.labels) == ("preferred_id", {"a": ["0"], "b": ["1"]})
    row = {"prompt": Q, "response_2": B, "response_1": A}
    found = look(tmp_path, [{**row, "preference": n} for n in (1, 2)])
    assert (found.source.columns["answer_a"], found.source.labels) == ("response_1", {"a": ["1"], "b": ["2"]})


@pytest.mark.parametrize("name", ["label", "winner", "preference", "labels"])
def test_0_and_1_have_two_readings_and_both_are_shown_on_the_same_row(tmp_path, name):
    (what, *options), found = asked(tmp_path, [{**PAIR, name: n} for n in (0, 1, 1)])
    assert what == f"{name!r} can be read in 2 ways"
    assert [option.means for option in options] == [
        "1 means that 'answer_a' won",
        "1 means that 'answer_b' won",
    ]
    assert [option.shown for option in options] == [
        f"chosen {B!r}, rejected {A!r}",
        f"chosen {A!r}, rejected {B!r}",
    ]
    assert [each.source.labels for each in found[1:]] == [
        {"a": ["1"], "b": ["0"]},
        {"a": ["0"], "b": ["1"]},
    ]


def test_a_number_that_is_stated_decides_what_the_others_mean(tmp_path):
    rows = [{**PAIR, "winner": n} for n in (0, 1, 2)]
    (_, *options), _ = asked(tmp_path, rows)
    assert [option.means for option in options] == [
        "1 is the first answer, 2 the second, 0 neither",
        "0 is the first answer, 1 the second, 2 neither",
        "0 is the first answer, 2 the second, 1 neither",
        "2 is the first answer, 0 the second, 1 neither",
        "1 is the first answer, 0 the second, 2 neither",
    ]
    assert look(tmp_path, rows, labels={"tie": ["0"]}).source.labels == {"a": ["1"], "b": ["2"], "tie": ["0"]}


def test_a_winner_named_by_its_model_is_found_in_its_own_row(tmp_path):
    rows = [
        {**PAIR, "model_a": models[0], "model_b": models[1], "winner": models[i % 2]}
        for i, models in enumerate([("x-7b", "y-8b"), ("y-8b", "x-7b"), ("z", "x-7b")])
    ]
    found = look(tmp_path, rows)
    assert found.source.columns == {"name_a": "model_a", "name_b": "model_b"}
    assert found.kept == 3


def test_a_column_that_says_the_same_as_what_is_read_is_no_question(tmp_path):
    rows = [
        {"prompt": f"{Q} {i}", "response_a": A, "response_b": B, "score_a": i % 3, "score_b": 1, "winner": "bta"[i % 3]}
        for i in range(9)
    ]  # fmt: skip
    (what, *_), _ = asked(tmp_path, [{**row, "winner": "aaa"[i % 3]} for i, row in enumerate(rows)])
    assert "(rated_pair or winner)" in what
    found = look(tmp_path, [{**row, "winner": row["winner"].replace("t", "tie")} for row in rows])
    assert found.kept == 6


def test_a_few_bad_rows_are_named_not_taken_for_another_layout(tmp_path):
    rows = [{"prompt": Q, "chosen": A, "rejected": B}] * 40
    with pytest.raises(DataError, match=r'rows\.jsonl:41: "chosen" is null'):
        look(tmp_path, [*rows, {"prompt": Q, "chosen": None, "rejected": B}])


def test_columns_that_any_layout_may_carry_are_not_called_unused(tmp_path):
    rows = [{"prompt": Q, "chosen": A, "rejected": B, "system": None, "id": 1}] * 9
    found = look(tmp_path, [*rows, {**rows[0], "system": "Be brief."}])
    assert (found.unused, found.source.columns) == ({"id": "the same in all rows"}, {})


def test_a_name_that_no_format_knows_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="unknown name 'antwort'"):
        look(tmp_path, [{"prompt": Q, "chosen": A, "rejected": B}], columns={"antwort": "chosen"})


def test_a_column_that_is_not_there_is_told(tmp_path):
    with pytest.raises(
        DataError, match=r"no \"frage\"; found \['chosen', 'prompt', 'rejected'\]\. Fix: --column prompt=NAME"
    ):
        look(tmp_path, [{"prompt": Q, "chosen": A, "rejected": B}], columns={"prompt": "frage"})


def rated(n, rate):
    return [{"prompt": f"{Q} {i}", "completion": A, "score": rate(i)} for i in range(n)]


def test_ratings_with_holes_are_labels_and_not_answers_to_imitate(tmp_path):
    found = look(tmp_path, rated(600, lambda i: i / 599 if i % 7 else None))
    assert found.source.labels["neither"][-1] == "null"
    assert (found.format.name, found.dropped.keys()) == ("labelled", {"neither wanted nor unwanted"})


def test_the_range_of_ratings_is_that_of_all_rows_not_of_the_first(tmp_path):
    found = look(tmp_path, rated(1000, lambda i: i / 10))
    assert float(found.source.labels["wanted"][0].removeprefix(">=")) == pytest.approx(60, abs=2)
    assert float(found.source.labels["unwanted"][0].removeprefix("<=")) == pytest.approx(40, abs=2)


def test_bounds_of_large_ratings_are_read_as_bounds(tmp_path):
    found = look(tmp_path, rated(101, lambda i: i * 100_000))
    assert found.source.labels["wanted"] == [">=6000000"]
    assert found.kept == 82
