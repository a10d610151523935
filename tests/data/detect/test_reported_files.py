"""Files that users of preference tools stumbled over, with made-up rows: read as they are meant, or asked about with a line that is right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dpo_cli.data.detect.infer import Inferred, infer
from dpo_cli.data.detect.infer.file import KEY
from dpo_cli.data.detect.infer.question import Question
from dpo_cli.data.detect.parse import parse_rows
from dpo_cli.data.sources.files import read_source
from dpo_cli.data.sources.placed_rows import Problems
from dpo_cli.errors import DataError
from dpo_cli.recipe.schema import Source
from dpo_cli.types import Example
from tests.data.pasted import pasted
from tests.fakes import write_jsonl

N = 14
Row = dict[str, Any]
USER, BOT = "user", "assistant"


def say(role: str, content: str, **more: Any) -> Row:
    return {"role": role, "content": content, **more}


def good(n: int) -> str:
    return f"Oak answer {n}: it keeps for years."


def poor(n: int) -> str:
    return f"Ash answer {n}: no idea, really."


def ask(n: int) -> str:
    return f"Why do boats {n} float?"


def alpaca(n: int) -> Row:
    return {"instruction": "Answer the riddle.", "input": ask(n), "chosen": good(n), "rejected": poor(n)}


def arena(n: int) -> Row:
    talks = [[say(USER, ask(n)), say(BOT, text)] for text in (good(n), poor(n))]
    first = n % 2
    return {
        "winner": ["model_a", "model_b"][first],
        "conversation_a": talks[first],
        "conversation_b": talks[1 - first],
    }


def messages_and_texts(n: int) -> Row:
    talk = [say(USER, "Hello."), say(BOT, "Yes?"), say(USER, ask(n))]
    return {"context": talk, "response1": poor(n), "response2": good(n), "overall_preference": [2, 3][n % 2]}


def turns_before(n: int) -> Row:
    return {
        "context": [say(USER, "A first word."), say(BOT, "Go on.")],
        "prompt": ask(n),
        "chosen": good(n),
        "rejected": poor(n),
    }


def export(n: int) -> Row:
    side = ["left", "right"][n % 2]
    answers = [good(n), poor(n)] if side == "left" else [poor(n), good(n)]
    result = {
        "value": {"selected": side},
        "from_name": "pw",
        "to_name": "answer1,answer2",
        "type": "pairwise",
    }
    return {
        "id": n,
        "annotations": [{"id": 90 + n, "result": [result], "was_cancelled": False}],
        "data": {"prompt": ask(n), "answer1": answers[0], "answer2": answers[1]},
    }


def turn_not_trained_on(n: int) -> Row:
    return {
        "messages": [say(USER, ask(n)), say(BOT, poor(n), weight=0), say(USER, "Again."), say(BOT, good(n))]
    }


def framed_objects(n: int) -> Row:
    listed = [{"answer": text, "model": "m", "rank": rank} for rank, text in ((2.0, poor(n)), (1.0, good(n)))]
    return {
        "prompt": f"\n\nHuman: {ask(n)}\n\nAssistant: ",
        "answers": listed,
        "turns": 1,
        "num_responses": 2,
        "source": ["made"],
        "good_natured": True,
    }


def other_last_answer(n: int) -> Row:
    return {
        "messages": [say("system", "Be brief."), say(USER, ask(n)), say(BOT, good(n))],
        "rejected_response": poor(n),
    }


def upvotes(n: int) -> Row:
    first = n % 2
    answers, scores = [good(n), poor(n)], [40, 3]
    return {
        "history": ask(n),
        "human_ref_A": answers[first],
        "human_ref_B": answers[1 - first],
        "score_A": scores[first],
        "score_B": scores[1 - first],
        "labels": 1 - first,
    }


def human_and_gpt(n: int) -> Row:
    return {
        name: [say("human", ask(n)), say("gpt", text)]
        for name, text in (("chosen", good(n)), ("rejected", poor(n)))
    }


def numbered_scores(n: int) -> Row:
    first = n % 2
    return {
        "question": ask(n),
        f"answer_{first}": good(n),
        f"score_{first}": 1.0,
        f"answer_{1 - first}": poor(n),
        f"score_{1 - first}": -1.0,
    }


def prefixed(n: int) -> Row:
    return {"question": ask(n), "my_chosen": good(n), "my_rejected": poor(n)}


def j_and_k(n: int) -> Row:
    return {"qid": n, "question": ask(n), "response_j": good(n), "response_k": poor(n)}


def answers_as_objects(n: int) -> Row:
    return {"prompt": ask(n), "chosen": say(BOT, good(n)), "rejected": say(BOT, poor(n))}


def names_of_models(n: int) -> Row:
    first = n % 2
    answers, models = [good(n), poor(n)], ["fir", "elm"]
    return {
        "prompt": ask(n),
        "response_a": answers[first],
        "response_b": answers[1 - first],
        "model_a": models[first],
        "model_b": models[1 - first],
        "winner": "fir",
    }


def cells_of_json(n: int) -> Row:
    return {
        "prompt": json.dumps([ask(n)]),
        "chosen": json.dumps([good(n)]),
        "rejected": json.dumps([poor(n)]),
    }


READ = [
    alpaca, arena, messages_and_texts, turns_before, export, turn_not_trained_on, framed_objects, other_last_answer, upvotes, human_and_gpt,
    numbered_scores, prefixed, j_and_k, answers_as_objects, names_of_models, cells_of_json,
]  # fmt: skip


def file_of(folder: Path, row: Any, rows: list[Row] | None = None) -> Path:
    return write_jsonl(folder / "rows.jsonl", rows or [row(n) for n in range(N)])


def examples(source: Source) -> list[Example]:
    problems = Problems()
    parsed = parse_rows(read_source(source, KEY, problems), source, KEY, True, problems)
    problems.raise_any()
    assert parsed is not None and parsed.rows - parsed.dropped.total() > 0
    return parsed.examples


def look(path: Path) -> Inferred:
    return infer(Source(path=str(path)))


def is_right(example: Example) -> bool:
    """Return whether the better answer comes first and the prompt holds the question."""
    first, last = str(example.completions[0]), str(example.completions[-1])
    ranked = "Ash" in last if len(example.completions) > 1 else True
    return "Oak" in first and ranked and "Why do boats" in str(example.prompt)


@pytest.mark.parametrize("row", READ, ids=lambda row: row.__name__)
def test_it_is_read_as_it_is_meant(row: Any, tmp_path: Path) -> None:
    found = examples(look(file_of(tmp_path, row)).source)

    assert len(found) == N
    assert all(map(is_right, found))


def test_all_of_the_prompt_is_read(tmp_path: Path) -> None:
    assert "riddle" in str(examples(look(file_of(tmp_path, alpaca)).source)[0].prompt)
    assert "A first word." in str(examples(look(file_of(tmp_path, turns_before)).source)[0].prompt)
    (framed,) = {
        str(each.prompt).count("Human:") for each in examples(look(file_of(tmp_path, framed_objects)).source)
    }
    assert framed == 0


def test_scores_make_no_margin_unasked(tmp_path: Path) -> None:
    found = look(file_of(tmp_path, upvotes))
    assert found.format.name == "winner"
    assert not any(name.startswith("score_") for name in found.source.columns)


def test_a_label_of_0_and_1_is_asked_about_with_both_readings(tmp_path: Path) -> None:
    rows = [
        {
            "prompt": ask(n),
            "response_a": [poor(n), good(n)][n % 2],
            "response_b": [good(n), poor(n)][n % 2],
            "label": n % 2,
        }
        for n in range(N)
    ]
    with pytest.raises(Question) as question:
        look(file_of(tmp_path, None, rows))
    readings = [examples(infer(pasted(option.command)).source) for option in question.value.options]
    assert [all(map(is_right, each)) for each in readings].count(True) == 1
    assert all(option.shown for option in question.value.options)


def test_ranks_are_asked_about_in_three_ways(tmp_path: Path) -> None:
    rows = [{"prompt": ask(n), "responses": [poor(n), good(n)], "ranks": [2, 1]} for n in range(N)]
    with pytest.raises(Question) as question:
        look(file_of(tmp_path, None, rows))
    sources = [infer(pasted(option.command)).source for option in question.value.options]
    assert [(source.format, source.better) for source in sources] == [
        ("ratings", "lower"),
        ("ratings", "higher"),
        ("ranking", None),
    ]
    assert all(map(is_right, examples(sources[0])))


def test_a_prompt_that_is_not_in_the_conversations_can_be_left_unread(tmp_path: Path) -> None:
    rows = [{"prompt": "Below is...", **human_and_gpt(n)} for n in range(N)]
    with pytest.raises(Question) as question:
        look(file_of(tmp_path, None, rows))
    (option,) = question.value.options
    assert all(map(is_right, examples(infer(pasted(option.command)).source)))


def test_null_cells_are_one_line_with_a_way_to_leave_them_out(tmp_path: Path) -> None:
    rows = [{"prompt": ask(n), "chosen": good(n), "rejected": poor(n) if n % 4 else None} for n in range(N)]
    path = file_of(tmp_path, None, rows)
    with pytest.raises(DataError) as error:
        look(path)
    (problem,) = error.value.problems
    assert "4 rows in all" in problem.what and problem.fix.endswith("--skip-null")
    assert len(examples(infer(pasted(problem.fix)).source)) == N - 4


@pytest.mark.parametrize("is_flat", [True, False])
def test_a_tree_of_messages_is_ranked_answers_not_text(is_flat: bool, tmp_path: Path) -> None:
    rows: list[Row] = []
    for n in range(N):
        answers = [
            {
                "message_id": f"r{n}-{rank}",
                "parent_id": f"r{n}",
                "text": text,
                "role": BOT,
                "rank": rank,
                "message_tree_id": f"r{n}",
            }
            for rank, text in ((1, poor(n)), (0, good(n)))
        ]
        root = {
            "message_id": f"r{n}",
            "parent_id": None,
            "text": ask(n),
            "role": "prompter",
            "rank": None,
            "message_tree_id": f"r{n}",
        }
        if is_flat:
            rows += [root, *answers]
        else:
            rows.append(
                {
                    "message_tree_id": f"r{n}",
                    "prompt": {**root, "replies": [{**a, "replies": []} for a in answers]},
                }
            )
    found = examples(look(file_of(tmp_path, None, rows)).source)
    assert len(found) == N and all(map(is_right, found))
