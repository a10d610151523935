"""The audit: all of a planted set, nothing in a clean one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from dpo_cli.data.audit.audit import Audit, audit, audit_data
from dpo_cli.data.audit.text_checks import is_refusal, nearly_same, template_fault
from dpo_cli.data.audit.write_clean import write_clean
from dpo_cli.data.tokenize.tokenizer import Vocabulary
from dpo_cli.recipe.schema import Source, Split
from dpo_cli.types import DataKind, DataNeeds, Example
from tests.data.build import chat, load_rows, needs_control_text, parse, read
from tests.fakes import byte_tokenizer, pair_rows, write_jsonl

STARTER = Path(__file__).resolve().parents[3] / "recipes" / "starter"

MARKS = [
    ("chosen", "{}<|im_end|>"),
    ("chosen", "<|im_start|>assistant\n{}"),
    ("rejected", "{}</s>"),
    ("chosen", "{}<|eot_id|>"),
    ("rejected", "{}<|endoftext|>"),
    ("chosen", "{}<end_of_turn>"),
    ("prompt", "[INST] {} [/INST]"),
    ("prompt", "<s>{}"),
    ("prompt", "Human: {}\n\nAssistant:"),
    ("prompt", "### Instruction:\n{}\n\n### Response:"),
    ("chosen", "Assistant: {}"),
    ("rejected", "AI: {}"),
    ("rejected", "{}\n\nHuman: And then?"),
    ("chosen", "{}\n### Instruction:\nNext."),
    ("chosen", "<|start_header_id|>assistant<|end_header_id|>\n\n{}"),
]


def starter(name: str) -> list[dict[str, Any]]:
    return [dict(row.values) for row in read(STARTER / name)]


def planted() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The starter set with 50 duplicates, 20 contradictions, 10 cycles, 30 leaks and 15 marks of a template."""
    train, held_out = starter("train.jsonl"), starter("heldout.jsonl")
    swapped = [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in train[50:70]]
    repeated = [
        {**row, "prompt": f" {row['prompt'].upper()}\n"} if i % 2 else row for i, row in enumerate(train[:50])
    ]
    circles = []
    for row in train[70:80]:
        third = f"{row['chosen']} Or so."
        circles += [
            {**row, "chosen": row["rejected"], "rejected": third},
            {**row, "chosen": third, "rejected": row["chosen"]},
        ]
    leaked = [
        {**row, "chosen": f"{row['chosen']} Indeed.", "prompt": row["prompt"].lower()}
        for row in train[80:110]
    ]
    for i, (side, mark) in enumerate(MARKS):
        train[110 + i] = {**train[110 + i], side: mark.format(train[110 + i][side])}
    return [*train, *repeated, *swapped, *circles], [*held_out, *leaked]


def found(audited: Audit) -> dict[str, int]:
    return {finding.name: finding.count for finding in audited.findings}


ALL = {"duplicates": 50, "contradictions": 20, "cycles": 10, "leaks": 30, "template": 15}


@needs_control_text
def test_all_that_was_planted_is_found_with_its_places(tmp_path: Path) -> None:
    train, held_out = planted()
    path = write_jsonl(tmp_path / "heldout.jsonl", held_out)
    data = load_rows(tmp_path, train, eval=[Source(path=str(path))])
    audited = audit_data(data, byte_tokenizer())
    assert found(audited) == ALL
    assert audited.faults == 125
    cases = {finding.name: finding.cases for finding in audited.findings}
    where = f"{tmp_path}/train.jsonl"
    assert cases["duplicates"][0] == (f"{where}:301", f"{where}:1")
    assert set(cases["contradictions"][0]) == {f"{where}:51", f"{where}:351"}
    assert set(cases["cycles"][0]) == {f"{where}:71", f"{where}:371", f"{where}:372"}
    assert cases["leaks"][0] == (f"{tmp_path}/heldout.jsonl:81", f"{where}:81")
    assert [place for (place,) in cases["template"]] == [f"{where}:{n}" for n in range(111, 126)]


def test_the_clean_set_raises_no_alarm() -> None:
    audited = audit(
        *(parse_at(Source(path=str(STARTER / name))) for name in ("train.jsonl", "heldout.jsonl"))
    )
    assert (audited.findings, audited.notes) == ([], [])
    assert audited.rows == 380


def test_what_is_written_is_clean_and_keeps_its_columns(tmp_path: Path) -> None:
    train, held_out = planted()
    source = Source(path=str(write_jsonl(tmp_path / "all.jsonl", train)))
    audited = audit(
        parse_at(source), parse_at(Source(path=str(write_jsonl(tmp_path / "eval.jsonl", held_out))))
    )
    kept, rows = write_clean(source, audited, tmp_path / "clean.jsonl")
    # 20 + 20 contradictions, 10 x 3 in circles, 30 leaks, 15 marks; a repeat goes, its first stays.
    assert (rows, kept) == (len(train), len(train) - 50 - 40 - 30 - 30 - 15)
    assert audit(parse_at(Source(path=str(tmp_path / "clean.jsonl"))), []).findings == []
    assert dict(read(tmp_path / "clean.jsonl")[0].values) == train[0]


def parse_at(source: Source) -> list[Example]:
    placed = read(source.path)
    examples = parse([row.values for row in placed]).examples
    return [Example(e.prompt, e.completions, row.place) for e, row in zip(examples, placed, strict=True)]


def test_rows_dropped_for_their_own_fault_count_and_ties_do_not(tmp_path: Path) -> None:
    rows = [
        *(
            {"prompt": r["prompt"], "answer_a": r["chosen"], "answer_b": r["rejected"], "winner": "a"}
            for r in pair_rows(6)
        ),
        {"prompt": "x", "answer_a": "same", "answer_b": "same", "winner": "a"},
        {"prompt": "y", "answer_a": "", "answer_b": "b", "winner": "a"},
        {"prompt": "z", "answer_a": "a", "answer_b": "b", "winner": "tie"},
    ]
    audited = audit_data(load_rows(tmp_path, rows), byte_tokenizer())
    assert found(audited) == {"identical": 1, "empty": 1}
    assert f"1 rows dropped: empty completion (first: {tmp_path}/train.jsonl:8)" in audited.lines()


def test_a_row_that_is_seen_often_is_audited_once(tmp_path: Path) -> None:
    data = load_rows(tmp_path, pair_rows(5), source={"weight": 3.0}, split=Split(eval=0.0))
    assert len(data.train_rows) == 15
    assert found(audit_data(data, byte_tokenizer())) == {}


@pytest.mark.parametrize("kind", ["pairs", "rankings"])
def test_a_recipe_finds_in_rankings_what_is_found_in_their_file(tmp_path: Path, kind: DataKind) -> None:
    orders = ["abcd", "abdc", "abcd", "abcd"]
    rows = [
        {"prompt": "pp" if i == 2 else "p", "completions": [f"It is {letter}" for letter in order]}
        for i, order in enumerate(orders)
    ]
    rows.append({"prompt": "q", "completions": ["No.", "Yes, it is.", "yes it is", "yes it is"]})
    data = load_rows(tmp_path, rows, source={"format": "ranking"}, needs=DataNeeds(kind))
    expected = {"duplicates": 1, "contradictions": 1, "nearly_same": 1}
    assert found(audit_data(data, byte_tokenizer())) == expected
    assert found(audit(parse(rows, format="ranking").examples, [])) == expected
    assert (data.report.repeated, data.report.contradictions) == (1, 1)


def test_labels_that_contradict_each_other_are_a_contradiction() -> None:
    thumbs = [chat("q", "a", label=True), chat("Q ", "a", label=False), chat("q", "b", label=False)]
    assert found(audit([at(e, i) for i, e in enumerate(thumbs)], [])) == {"contradictions": 1}


def at(example: Example, line: int) -> Example:
    return Example(
        example.prompt,
        example.completions,
        f"rows.jsonl:{line}",
        label=example.label,
        margin=example.margin,
        ratings=example.ratings,
    )


def test_answers_to_nothing_are_named_but_not_texts_that_start_from_nothing() -> None:
    rows = [at(chat(" ", "a", "b"), 1), at(chat("q", "a", "b"), 2), at(chat("\n", "a", label=True), 3)]
    assert found(audit(rows, [])) == {"empty_prompt": 2}
    assert found(audit([at(chat("", "a text"), 1)], [])) == {}


def test_rankings_take_part_in_contradictions_and_equal_ratings_prefer_nothing() -> None:
    ranking = at(chat("q", "a", "b", "c"), 1)
    assert found(audit([ranking, at(chat("q", "c", "a"), 2)], [])) == {"contradictions": 1}
    rated = at(chat("q", "a", "b", "c", ratings=(3.0, 1.0, 1.0)), 1)
    assert found(audit([rated, at(chat("q", "c", "b"), 2), at(chat("q", "b", "c"), 3)], [])) == {
        "contradictions": 1
    }
    assert found(audit([rated, at(chat("q", "c", "b"), 2)], [])) == {}


def test_scores_below_zero_and_pairs_that_hardly_differ_are_found() -> None:
    rows = [at(chat("q", "a", "b", margin=-1.0), 1), at(chat("p", "Yes, it is.", "yes it is"), 2)]
    assert found(audit(rows, [])) == {"nearly_same": 1, "scores": 1}


LONG = " ".join(f"word{i}" for i in range(200))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("It is.", "it is", True),
        ("The contraction is indeed it's.", "The contraction is it's.", False),
        (LONG, LONG.replace("word7 ", "other "), True),
        (LONG, LONG.replace("word1", "other"), False),
        ("!", "?", False),
    ],
)
def test_pairs_that_hardly_differ(one: str, other: str, same: bool) -> None:
    assert nearly_same(one, other) == same


@pytest.mark.parametrize(
    ("prompt", "completion", "told"),
    [
        ("Is 1 < 2 [in C]?", "Yes: 1 < 2, a[1] is <b>bold</b>.", None),
        ("q", "An assistant: someone who helps.", None),
        ("q", "Note:\nThe human eye: a lens.", None),
        ("q", "Say <|im_end|>", "spells <|im_end|>"),
        (
            "What is the sea made of?",
            "What is the sea made of? Water.",
            "the completion starts with the whole prompt",
        ),
    ],
)
def test_marks_of_a_template(prompt: str, completion: str, told: str | None) -> None:
    assert template_fault(chat(prompt, completion, "other")) == told


def test_control_tokens_of_the_models_own_tokenizer_are_marks_too() -> None:
    assert template_fault(chat("q", "a @@ b"), lambda text: re.findall("@@", text)) == "spells @@"


def test_control_tokens_that_are_meant_are_no_marks_and_the_others_are_named_with_their_key() -> None:
    tokenizer = byte_tokenizer(chat=False)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|hole|>", "<|after|>"]})
    rows = [
        at(Example(f"def f{i}():<|hole|> return y<|after|>", (" y = 1", " pass"), ""), i) for i in range(3)
    ]
    spelled = Vocabulary(tokenizer).spelled
    (finding,) = audit(rows, [], spelled).findings
    assert finding.line.startswith(
        "3 rows spell control tokens or a mark of a chat template (spells <|after|>: 3); they are read as plain text: "
        """'data.control_tokens=["<|after|>", "<|hole|>"]' where they are meant (first: """
    )
    meant = ["<|hole|>", "<|after|>"]
    assert audit(rows, [], Vocabulary(tokenizer, meant).spelled, meant).findings == []
    (finding,) = audit(rows, [], Vocabulary(tokenizer, meant[:1]).spelled, meant[:1]).findings
    assert "(spells <|after|>: 3)" in finding.line


def test_a_mark_of_a_template_that_is_meant_is_none() -> None:
    row = chat("q", "a<|endoftext|>b")
    assert template_fault(row) == "spells <|endoftext|>"
    assert template_fault(row, meant=["<|endoftext|>"]) is None


def test_one_prompt_for_all_rows_is_noted_in_a_short_file_too() -> None:
    rows = [at(chat("Answer the question.", f"yes {i}", f"no {i}"), i) for i in range(60)]
    said = "all 60 rows have one and the same prompt ('Answer the question.'): are the questions in another column?"
    assert audit(rows, []).notes[0] == said
    assert not any("different prompts" in note for note in audit(rows, []).notes)
    assert audit(rows[:6], []).notes == [said.replace("60", "6")]
    other = at(chat("Another one.", "yes", "no"), 7)
    assert audit([*rows[:6], other], []).notes == []


@pytest.mark.parametrize(
    ("text", "refuses"),
    [
        ("I'm sorry, but I can't help with that.", True),
        ("I\u2019m really sorry, but I won\u2019t do it.", True),
        ("As an AI language model, I cannot feel.", True),
        ("Unfortunately, as an AI I am unable to browse.", True),
        ("I can't do that.", True),
        ("I'm sorry to hear that! Rest well.", False),
        ("Sorry for the wait: the answer is 4.", False),
        ("You cannot divide by zero.", False),
    ],
)
def test_refusals(text: str, refuses: bool) -> None:
    assert is_refusal(text) == refuses


def test_a_set_that_teaches_something_else_is_noted() -> None:
    rows = [
        at(
            chat(
                f"question {i % 5}", "I'm sorry, I cannot help with that, as it is not allowed here.", f"{i}"
            ),
            i,
        )
        for i in range(100)
    ]
    notes = audit(rows, []).notes
    assert [note.split(" ")[0:4] for note in notes] == [
        ["the", "longer", "completion", "wins"],
        ["100%", "of", "the", "wanted"],
        ["100%", "of", "the", "wanted"],
        ["only", "5%", "as", "many"],
    ]
    assert audit(rows[:20], []).notes == []
