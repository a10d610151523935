"""What a chat template leaves out: found by rendering with and without it, counted, an answer's row dropped."""

from __future__ import annotations

from typing import Any

import pytest

from dpo_cli.data.row_notes import Note, Reason
from dpo_cli.data.tokenize.template import Renderer
from dpo_cli.data.tokenize.unwritten import Part, Unwritten
from dpo_cli.errors import DataError
from dpo_cli.types import Example
from tests.data.build import encode_one, load_rows, scored_text, turns
from tests.fakes import CHAT_TEMPLATE, byte_tokenizer

WRITES_CALLS = CHAT_TEMPLATE.replace(
    "<|im_end|>",
    "{% for call in message.tool_calls or [] %}[{{ call.function.name }} {{ call.function.arguments | tojson }}]{% endfor %}<|im_end|>",
    1,
)
FIRST_CALL = WRITES_CALLS.replace("message.tool_calls or []", "(message.tool_calls or [])[:1]")
NAMES = WRITES_CALLS.replace(" {{ call.function.arguments | tojson }}", "")
LISTS_TOOLS = "{% for tool in tools or [] %}{{ tool | tojson }}{% endfor %}" + CHAT_TEMPLATE
KNOWS_THREE = CHAT_TEMPLATE.replace(
    "{% for message in messages %}",
    "{% for message in messages if message.role in ('system', 'user', 'assistant') %}",
)
ONLY_SAYS = CHAT_TEMPLATE.replace("message['content']", "message['content'].split('</think>')[-1]")
"""Leaves out the think block of every answer."""
TOOLS = ({"type": "function", "function": {"name": "river_level", "parameters": {"type": "object"}}},)


def tokenizer(template: str) -> Any:
    made = byte_tokenizer()
    made.chat_template = template
    return made


def call(name: str = "river_level", **arguments: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def calling(*calls: Any, content: str = "") -> dict[str, Any]:
    return {"role": "assistant", "content": content, "tool_calls": list(calls)}


def asked(answer: dict[str, Any], *before: dict[str, Any], tools: Any = None) -> Example:
    question = (*turns(("user", "How high is the Aar?")), *before)
    return Example(question, ((answer,), turns(("assistant", "No idea."))), "rows.jsonl:1", tools)


def test_an_answer_whose_call_is_written_is_kept_and_scored():
    made = tokenizer(WRITES_CALLS)
    encoded = encode_one(asked(calling(call(river="Aar"))), made)
    assert scored_text(encoded, 0, made) == '[river_level {"river": "Aar"}]<|im_end|>'
    assert encoded.notes == Note(0)


@pytest.mark.parametrize(
    ("template", "answer"),
    [
        (CHAT_TEMPLATE, calling(call(river="Aar"))),
        (CHAT_TEMPLATE, calling(call(river="Aar"), content="I look it up.")),
        (FIRST_CALL, calling(call(river="Aar"), call(river="Inn"))),
        (NAMES, calling(call(river="Aar"))),
        (NAMES, calling({"function": {"name": "river_level", "arguments": '{"river": "Aar"}'}})),
    ],
    ids=["call", "call behind words", "second call", "arguments", "arguments as text"],
)
def test_a_row_whose_answer_is_left_out_or_cut_short_is_dropped(template, answer):
    assert encode_one(asked(answer), tokenizer(template)).reason is Reason.UNWRITTEN


def test_a_call_is_not_taken_for_written_because_the_tools_name_it():
    made = tokenizer(LISTS_TOOLS)
    answer = calling(call(river="Aar"))
    assert encode_one(asked(answer, tools=TOOLS), made).reason is Reason.UNWRITTEN


def test_tools_are_not_taken_for_written_because_a_call_names_them():
    encoded = encode_one(asked(calling(call(river="Aar")), tools=TOOLS), tokenizer(WRITES_CALLS))
    assert encoded.notes == Note.TOOLS_UNWRITTEN


def test_calls_and_turns_in_the_context_are_counted_and_the_row_kept():
    answer = {"role": "assistant", "content": "It is low."}
    before = (calling(call(river="Aar")), {"role": "tool", "content": "0.4 m"})
    encoded = encode_one(asked(answer, *before), tokenizer(KNOWS_THREE))
    assert encoded.reason is None
    assert encoded.notes & (Note.CALLS_UNWRITTEN | Note.TURN_UNWRITTEN | Note.TOOLS_UNWRITTEN) == (
        Note.CALLS_UNWRITTEN | Note.TURN_UNWRITTEN
    )


def test_a_turn_between_the_answers_of_either_completion_is_counted():
    long = (calling(content="I look."), {"role": "tool", "content": "low"}, *turns(("assistant", "Low.")))
    short = turns(("assistant", "No idea."))
    for completions in ((long, short), (short, long)):
        example = Example(turns(("user", "q")), completions, "rows.jsonl:1")
        assert encode_one(example, tokenizer(KNOWS_THREE)).notes == Note.TURN_UNWRITTEN
        assert encode_one(example, tokenizer(CHAT_TEMPLATE)).notes == Note(0)


def test_a_text_that_another_turn_repeats_is_not_taken_for_written():
    level = "The river Aar is at 0.4 metres."
    before = (*turns(("assistant", "I ask.")), {"role": "tool", "content": level})
    encoded = encode_one(asked({"role": "assistant", "content": level}, *before), tokenizer(KNOWS_THREE))
    assert encoded.notes == Note.TURN_UNWRITTEN


def test_think_blocks_are_not_looked_at():
    answer = {"role": "assistant", "content": "<think>low?</think>Low."}
    before = (*turns(("assistant", "<think>only a thought</think>")), *turns(("user", "And?")))
    encoded = encode_one(asked(answer, *before), tokenizer(ONLY_SAYS))
    assert encoded.notes == Note.THOUGHTS_LOST


def test_what_was_written_once_is_rendered_again_only_where_its_text_is_not_found(monkeypatch):
    unwritten, rendered = Unwritten(Renderer(tokenizer(KNOWS_THREE))), []
    plain = Renderer.render
    monkeypatch.setattr(
        Renderer, "render", lambda *a, **k: rendered.append(1) or plain(*a, **k)
    )  # counts the renderings, and renders
    for i in range(20):
        said = turns(("user", f"q{i}"), ("assistant", f"a{i}"))
        text = plain(unwritten._renderer, Example(said, (), "row"), said, is_open=False)
        assert unwritten.parts(Example(said, (), "row"), said, text) == []
    assert len(rendered) == 2
    lost = (*turns(("user", "q")), {"role": "tool", "content": "t"})
    text = plain(unwritten._renderer, Example(lost, (), "row"), lost, is_open=False)
    assert unwritten.parts(Example(lost, (), "row"), lost, text) == [Part(1, "content")]


def test_the_report_counts_what_is_left_out_and_names_the_first_row(tmp_path):
    rows = [
        {
            "prompt": [{"role": "user", "content": f"q{i}"}],
            "chosen": [calling(call(river="Aar")) if i < 2 else {"role": "assistant", "content": "a"}],
            "rejected": [{"role": "assistant", "content": "b"}],
            "tools": list(TOOLS) if i > 3 else None,
        }
        for i in range(6)
    ]
    report = load_rows(tmp_path, rows).report
    assert [line.replace(f"{tmp_path}/", "") for line in report.unwritten()] == [
        "dropped 2: the chat template leaves out an answer, or some of it (first: train.jsonl:1)",
        "2 rows with tools that the template leaves out (first: train.jsonl:5)",
    ]
    assert load_rows(tmp_path, rows[2:4]).report.unwritten() == []
    with pytest.raises(
        DataError, match=r"leaves out an answer, or some of it: 2.*Fix: model\.chat_template="
    ):
        load_rows(tmp_path, rows[:2])
