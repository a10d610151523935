"""What `dpo init` makes of files as people have them, and where it asks."""

from __future__ import annotations

import csv
import json

import pytest

from dpo_cli.data import formats
from dpo_cli.data.infer import infer
from dpo_cli.errors import DataError, RecipeError
from dpo_cli.recipe.schema import Source
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


@pytest.mark.parametrize("name", formats.names())
def test_a_formats_own_sample_needs_nothing(tmp_path, name):
    found = look(tmp_path, [formats.get(name).sample] * 3)
    assert (found.format.name, found.source.columns, found.source.labels) == (name, {}, {})
    assert (found.rows, found.kept, found.unused) == (3, 3, [])


@pytest.mark.parametrize(
    ("row", "layout", "columns", "labels"),
    [
        (
            {"question": Q, "preferred": A, "Dispreferred": B},
            "strings",
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
            {},
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
        ({"question": Q, "answers": [A, B]}, "ranking", {"prompt": "question", "completions": "answers"}, {}),
        (
            {"conversation": [{"role": "user", "content": Q}, {"role": "assistant", "content": A}]},
            "conversation",
            {"messages": "conversation"},
            {},
        ),
        (
            {"messages": [{"from": "human", "value": Q}, {"from": "gpt", "value": A}], "kto_tag": True},
            "sharegpt_labelled",
            {"conversations": "messages", "label": "kto_tag"},
            {},
        ),
        (
            {"prompt": Q, "chosen": A, "rejected": B, "chosen_score": 3, "rejected_score": 1},
            "strings",
            {"score_chosen": "chosen_score", "score_rejected": "rejected_score"},
            {},
        ),
        ({"document": A}, "plain_text", {"text": "document"}, {}),
    ],
)
def test_names_of_others_are_written_down(tmp_path, row, layout, columns, labels):
    found = look(tmp_path, [row] * 4)
    assert (found.format.name, found.source.columns) == (layout, columns)
    if labels:
        assert found.source.labels == labels
    assert (found.kept, found.unused) == (4, [])


def test_a_table_of_votes(tmp_path):
    rows = [
        {"": i, "prompt": Q, "answer_a": A, "answer_b": B, "winner": "12t"[i % 3], "id": i} for i in range(9)
    ]
    with pytest.raises(
        DataError, match=r"'winner' holds words that are not understood: \"t\" \(3\)\. Fix: --label tie=t"
    ):
        look(tmp_path, rows, "votes.csv")
    found = look(tmp_path, rows, "votes.csv", labels={"tie": ["t"]})
    assert found.source.labels == {"tie": ["t"], "a": ["1"], "b": ["2"]}
    assert (found.rows, found.kept, found.dropped, found.unused) == (
        9,
        6,
        {"a tie: no completion is better": 3},
        ["id"],
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


def test_messages_in_cells_of_a_table(tmp_path):
    row = {
        "prompt": json.dumps([{"role": "user", "content": Q}]),
        "completion": json.dumps([{"role": "assistant", "content": A}]),
        "label": "1",
    }
    assert look(tmp_path, [row, {**row, "label": "0"}], "rows.csv").format.name == "labelled_messages"


@pytest.mark.parametrize(
    ("row", "told", "given"),
    [
        (
            {"question": Q, "instruction": Q, "chosen": A, "rejected": B},
            "the prompt may be 'question' or 'instruction'. Fix: --column prompt=question",
            {"columns": {"prompt": "question"}},
        ),
        (
            {"prompt": Q, "response": A, "rating": 5, "thumb": "up"},
            "the label may be 'thumb' or 'rating'. Fix: --column label=thumb",
            {"columns": {"label": "thumb"}},
        ),
        (
            {"prompt": Q, "chosen": A, "rejected": B, "answer_a": A, "answer_b": B, "winner": "a"},
            "the rows can be read as strings (chosen, prompt, rejected) or winner (answer_a, answer_b, prompt, winner). Fix: --format strings",
            {"format": "winner"},
        ),
        (
            {"text": A, "label": 1},
            "no layout fits, plain_text comes nearest; found ['label', 'text']. Fix: --format plain_text",
            {"format": "plain_text"},
        ),
        (
            {"prompt": Q, "responses": [B, A], "my ranks": [2, 1]},
            "the first of 'responses' would be the best, but 'my ranks' may say otherwise. Fix: --format ranking if the first is the best, "
            "--column 'ratings=my ranks' if the one with the highest number is",
            {"columns": {"ratings": "my ranks"}},
        ),
        (
            {"prompt": Q, "responses": [B, A], "best_index": 1, "id": 7, "embedding": [0.1, 0.2, 0.3]},
            "'best_index' may say otherwise. Fix: --format ranking if the first is the best",
            {"format": "ranking"},
        ),
        (
            {"User Message": Q, "context": Q, "chosen": A, "rejected": B},
            "the prompt may be 'User Message' or 'context'. Fix: --column 'prompt=User Message'",
            {"columns": {"prompt": "User Message"}},
        ),
        (
            {"instruction": Q, "input": "", "chosen": A, "rejected": B},
            "the prompt may be 'instruction' or 'input'. Fix: --column prompt=instruction",
            {"columns": {"prompt": "instruction"}},
        ),
        (
            {"prompt": Q, "answer_a": A, "answer_b": B, "winner": "not so sure"},
            "Fix: for each --label MEANING=WORD (a, b, tie), as in --label 'a=not so sure'",
            {"labels": {"a": ["not so sure"]}},
        ),
        (
            {"prompt": Q, "response_1": A, "response_2": B, "choice": 1},
            """'choice' holds words that are not understood: "1" (3).""",
            {"labels": {"a": ["1"]}},
        ),
        (
            {"prompt": Q, "answer_a": A, "answer_b": B, "safer": 1},
            "no column for winner of winner; found ['answer_a', 'answer_b', 'prompt', 'safer']. Fix: --column winner=NAME",
            {"columns": {"winner": "safer"}, "labels": {"b": ["1"]}},
        ),
        (
            {"history": Q, "ref A": A, "ref B": B, "score_a": 3, "score_b": 5},
            "no column for prompt, answer_a, answer_b of rated_pair;",
            {"columns": {"prompt": "history", "answer_a": "ref A", "answer_b": "ref B"}},
        ),
        (
            {"prompt": Q, "chosen": A, "loser_text": B},
            "no column for rejected of strings; found ['chosen', 'loser_text', 'prompt']. Fix: --column rejected=NAME",
            {"columns": {"rejected": "loser_text"}},
        ),
    ],
)
def test_what_may_be_two_things_is_asked_and_the_answer_taken(tmp_path, row, told, given):
    with pytest.raises(DataError) as error:
        look(tmp_path, [row] * 3)
    assert told in str(error.value)
    assert len(error.value.problems) == 1
    assert look(tmp_path, [row] * 3, **given).kept == 3


def test_answers_are_counted_from_0_or_from_1(tmp_path):
    row = {"prompt": Q, "response_0": A, "response_1": B}
    found = look(tmp_path, [{**row, "preference": n} for n in (0, 1)])
    assert found.source.columns == {
        "answer_a": "response_0",
        "answer_b": "response_1",
        "winner": "preference",
    }
    row = {"prompt": Q, "response_2": B, "response_1": A}
    found = look(tmp_path, [{**row, "preference": n} for n in (1, 2)])
    assert found.source.columns == {
        "answer_a": "response_1",
        "answer_b": "response_2",
        "winner": "preference",
    }
    with pytest.raises(DataError, match=r'not understood: "[01]" \(1\), "[01]" \(1\)'):
        look(tmp_path, [{**row, "preference": n} for n in (0, 1)])


def test_a_number_that_is_stated_counts_in_what_the_others_mean(tmp_path):
    rows = [{"prompt": Q, "answer_a": A, "answer_b": B, "winner": n} for n in (0, 1, 2)]
    with pytest.raises(DataError, match=r'understood: "1" \(1\), "2" \(1\)\. Fix: for each .* --label b=1$'):
        look(tmp_path, rows, labels={"a": ["0"]})
    with pytest.raises(DataError, match=r'understood: "2" \(1\)\. Fix: --label tie=2$'):
        look(tmp_path, rows, labels={"a": ["0"], "b": ["1"]})
    assert look(tmp_path, rows, labels={"tie": ["0"]}).source.labels == {"a": ["1"], "b": ["2"], "tie": ["0"]}


def test_a_few_bad_rows_are_named_not_taken_for_another_layout(tmp_path):
    rows = [{"prompt": Q, "chosen": A, "rejected": B}] * 40
    with pytest.raises(DataError, match=r'rows\.jsonl:41: "chosen" is null'):
        look(tmp_path, [*rows, {"prompt": Q, "chosen": None, "rejected": B}])


def test_columns_that_any_layout_may_carry_are_not_called_unused(tmp_path):
    rows = [{"prompt": Q, "chosen": A, "rejected": B, "system": None, "id": 1}] * 9
    found = look(tmp_path, [*rows, {**rows[0], "system": "Be brief."}])
    assert (found.unused, found.source.columns) == (["id"], {})


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
