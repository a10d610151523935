"""Templates without a system role, that never open the answer, or whose answers end in more than one control token."""

from __future__ import annotations

from typing import Any

import pytest

from dpo_cli.data.audit.audit import audit_data
from dpo_cli.data.row_notes import Note
from dpo_cli.data.tokenize.encode import Encoder
from dpo_cli.data.tokenize.template import SystemLost
from dpo_cli.errors import ModelError
from dpo_cli.types import Example
from tests.data.build import chat, config, encode_one, load_rows, scored_text, turns
from tests.fakes import CHAT_TEMPLATE, byte_tokenizer

REFUSES = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no such role here') }}{% endif %}"
    + CHAT_TEMPLATE
)
LEAVES_OUT = (
    "{% set messages = messages | rejectattr('role', 'equalto', 'developer') | list %}" + CHAT_TEMPLATE
)
NEVER_OPENS = CHAT_TEMPLATE.partition("{% if add_generation_prompt %}")[0]
CHANNELS = CHAT_TEMPLATE.replace(
    "{{ message['role'] }}\n",
    "{{ message['role'] }}\n{% if message['role'] == 'assistant' %}to all: {% endif %}",
)
"""Opens the answer's turn and leaves its first words to the model."""
CALLS = CHAT_TEMPLATE.replace(
    "<|im_end|>",
    "{% for call in message.tool_calls or [] %}{{ call.function.name }}</s>{% endfor %}<|im_end|>",
    1,
)
"""A call ends in a control token of its own."""


def tokenizer(template: str) -> Any:
    made = byte_tokenizer()
    made.chat_template = template
    return made


def prompt_text(example: Example, template: str, **fields: Any) -> str:
    encoded = encode_one(example, made := tokenizer(template), **fields)
    assert encoded.group is not None, encoded.reason
    return str(made.decode(encoded.group.prompt))


WITH_SYSTEM = chat([("system", "Rhyme."), ("user", "Why is sand warm?")], "a", "b")


def test_a_refused_system_prompt_is_counted_over_the_rows_and_has_a_way_out():
    rows = [chat("q", "a", "b"), WITH_SYSTEM, WITH_SYSTEM]
    said = (
        r"2 of 3 rows have a system prompt, which the chat template refuses \(no such role here\)\. "
        r"Fix: data\.merge_system=true puts it in front of the first user turn"
    )
    with pytest.raises(ModelError, match=said):
        Encoder(tokenizer(REFUSES), config()).encode(rows)


def test_a_template_that_fails_for_another_reason_is_not_blamed_on_the_system_prompt():
    broken = REFUSES.replace("{% for message in messages %}", "{{ 1 / 0 }}{% for message in messages %}")
    with pytest.raises(ModelError, match=r"rows\.jsonl:1: the chat template fails: ") as error:
        encode_one(WITH_SYSTEM, tokenizer(broken))
    assert not isinstance(error.value, SystemLost)


def test_a_developers_prompt_that_is_left_out_is_refused_though_system_prompts_are_written():
    developer = chat([("developer", "Rhyme."), ("user", "q")], "a", "b")
    with pytest.raises(
        ModelError, match="1 of 2 rows have a developer prompt, which the chat template leaves out"
    ):
        Encoder(tokenizer(LEAVES_OUT), config()).encode([WITH_SYSTEM, developer])
    assert "Rhyme.\n\nq" in prompt_text(developer, LEAVES_OUT, merge_system=True)


def test_a_merged_system_prompt_is_in_front_of_the_first_user_turn():
    opened = "<|im_start|>user\nRhyme.\n\nWhy is sand warm?<|im_end|>\n<|im_start|>assistant\n"
    assert prompt_text(WITH_SYSTEM, REFUSES, merge_system=True) == opened
    assert (
        prompt_text(chat("Why is sand warm?", "a", "b"), REFUSES, merge_system=True, system="Rhyme.")
        == opened
    )
    long = chat([("system", "s"), ("user", "q"), ("assistant", "a"), ("user", "r")], "a", "b")
    text = prompt_text(long, REFUSES, merge_system=True)
    assert text.startswith("<|im_start|>user\ns\n\nq<|im_end|>") and "<|im_start|>user\nr<|im_end|>" in text


def test_a_system_prompt_without_a_user_turn_behind_it_becomes_one():
    example = Example(
        turns(("system", "Say hello.")),
        (turns(("assistant", "Hello."), ("user", "u"), ("assistant", "v")),),
        "row",
    )
    assert prompt_text(example, REFUSES, merge_system=True).startswith(
        "<|im_start|>user\nSay hello.<|im_end|>"
    )


def test_a_template_that_never_opens_the_answer_is_refused_with_the_line_to_append():
    with pytest.raises(ModelError, match="does not open the answer") as error:
        encode_one(chat("q", "a", "b"), tokenizer(NEVER_OPENS))
    _, _, end = error.value.problems[0].fix.partition("that ends with ")
    made = tokenizer(NEVER_OPENS + end)
    encoded = encode_one(chat("q", "a", "b"), made)
    assert scored_text(encoded, 0, made) == "a<|im_end|>"
    assert made.decode(encoded.group.prompt).endswith("<|im_end|>\n<|im_start|>assistant\n")


def test_a_template_that_leaves_the_first_words_to_the_model_is_taken():
    made = tokenizer(CHANNELS)
    assert scored_text(encode_one(chat("q", "a", "b"), made), 0, made) == "to all: a<|im_end|>"


def test_a_template_that_opens_with_nothing_is_taken():
    made = tokenizer(
        "{% for m in messages %}{% if m.role == 'user' %}[{{ m.content }}]{% else %}{{ m.content }}</s>{% endif %}{% endfor %}"
    )
    assert scored_text(encode_one(chat("q", "a", "b"), made), 0, made) == "a</s>"


def test_an_answer_ends_where_the_template_ends_it_not_where_a_call_does():
    made = tokenizer(CALLS)
    calls = [{"type": "function", "function": {"name": name, "arguments": {}}} for name in ("look", "ask")]
    answer = {"role": "assistant", "content": "", "tool_calls": calls}
    example = Example(turns(("user", "q")), ((answer,), turns(("assistant", "No."))), "row")
    encoded = encode_one(example, made)
    assert [scored_text(encoded, k, made) for k in (0, 1)] == ["look</s>ask</s><|im_end|>", "No.<|im_end|>"]
    assert encoded.notes == Note(0)


def test_an_answer_that_ends_in_another_token_than_a_plain_one_keeps_it():
    other = CALLS.replace(
        "{% endfor %}<|im_end|>", "{% endfor %}{% if not message.tool_calls %}<|im_end|>{% endif %}", 1
    )
    made = tokenizer(other)
    call = [{"type": "function", "function": {"name": "look", "arguments": {}}}]
    example = Example(
        turns(("user", "q")), (({"role": "assistant", "content": "", "tool_calls": call},),), "row"
    )
    assert scored_text(encode_one(example, made), 0, made) == "look</s>"


ALTERNATES = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('speakers must alternate') }}{% endif %}{% endfor %}" + CHAT_TEMPLATE
)


def test_rows_that_a_template_refuses_are_dropped_and_counted_with_what_it_says(tmp_path):
    twice = [{"role": "user", "content": "Hello?"}, {"role": "user", "content": "Are you there?"}]
    rows = [
        {
            "prompt": twice if i in (0, 3) else twice[:1],
            "chosen": [{"role": "assistant", "content": f"Yes {i}."}],
            "rejected": [{"role": "assistant", "content": "No."}],
        }
        for i in range(6)
    ]
    for _ in ("tokenised", "from the cache"):
        data = load_rows(tmp_path, rows, tokenizer=tokenizer(ALTERNATES))
        said = f"dropped 2: the chat template refuses the conversation: speakers must alternate (first: {tmp_path}/train.jsonl:1)"
        assert said in "\n".join(data.report.lines())
        assert len(data.train) == 4
    assert [each.name for each in audit_data(data, tokenizer(ALTERNATES)).findings if each.name == "refused"]
    with pytest.raises(ModelError, match=r"train\.jsonl:1: the chat template fails: speakers must alternate"):
        load_rows(tmp_path, rows[:1], tokenizer=tokenizer(ALTERNATES))


def test_a_system_prompt_is_judged_on_a_row_that_is_refused_for_nothing_else():
    made = tokenizer(REFUSES + "{% if messages | length > 2 %}{{ raise_exception('too long') }}{% endif %}")
    long = chat([("system", "s"), ("user", "q"), ("assistant", "a"), ("user", "r")], "a", "b")
    with pytest.raises(ModelError, match="2 of 2 rows have a system prompt, which the chat template refuses"):
        Encoder(made, config()).encode([long, chat([("system", "s"), ("user", "q")], "a", "b")])
