"""Think blocks in answers: kept, dropped or not scored; templates that drop earlier ones or insert empty ones."""

from __future__ import annotations

import pytest

from dpo_cli.data.row_notes import Note, Reason
from dpo_cli.data.serving_check import served
from dpo_cli.data.tokenize.encode import Encoder
from dpo_cli.data.tokenize.thinking import USUAL, Block, blocks, marks_of, without_thoughts
from dpo_cli.types import Example
from tests.data.build import chat, config, encode_one, full_ids, load_rows, needs_control_text, scored_text
from tests.fakes import byte_tokenizer

THINKING_TEMPLATE = (
    "{%- set ns = namespace(last=-1) %}"
    "{%- for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
    "{%- for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{%- if m.role == 'assistant' %}"
    "{%- set said = m.content.split('</think>')[-1].lstrip('\n') %}"
    "{%- set thought = m.reasoning_content or (m.content.split('</think>')[0].split('<think>')[-1].strip('\n') "
    "if '</think>' in m.content else '') %}"
    "{%- if loop.index0 > ns.last %}{{ '<think>\n' + thought + '\n</think>\n\n' }}{% endif %}{{ said }}"
    "{%- else %}{{ m.content }}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{%- if enable_thinking is defined and not enable_thinking %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
"""Drops the thoughts of earlier answers, writes an empty block into one without, and into the prompt where thinking is off."""

THOUGHT = "<think>\nfour?\n</think>\n\nIt is 4."


def thinking_tokenizer(special=False):
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = THINKING_TEMPLATE
    if special:
        tokenizer.add_special_tokens({"additional_special_tokens": ["<think>", "</think>"]})
    return tokenizer


TOKENIZER = thinking_tokenizer()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("no thought", []),
        ("<think>a</think>b", [Block(0, 16, False)]),
        ("x<think>\n\n</think>y<think>c</think>", [Block(1, 18, True), Block(19, 35, False)]),
        ("opened in the prompt</think>b", [Block(0, 28, False)]),
        ("b<think>never closed", [Block(1, 20, False)]),
        ("<think>a</think>b</think>c", [Block(0, 16, False)]),
    ],
)
def test_blocks_are_found_open_closed_or_neither(text, found):
    assert blocks(text, [USUAL]) == found


def test_other_marks_count_only_where_the_template_writes_them():
    tokenizer = byte_tokenizer()
    assert marks_of(tokenizer) == (USUAL,)
    tokenizer.chat_template += "{# [THINK] #}"
    assert marks_of(tokenizer) == (USUAL, ("[THINK]", "[/THINK]"))


@pytest.mark.parametrize("special", [False, True])
def test_keep_scores_the_block_like_the_rest_and_counts_the_row(special):
    tokenizer = thinking_tokenizer(special)
    encoded = encode_one(chat("2+2?", THOUGHT, "<think>\nno\n</think>\n\n5."), tokenizer)
    assert scored_text(encoded, 0, tokenizer) == f"{THOUGHT}<|im_end|>"
    assert encoded.notes == Note.THOUGHTS_SCORED


@pytest.mark.parametrize("special", [False, True])
def test_unscored_reads_the_block_and_scores_the_answer(special):
    tokenizer = thinking_tokenizer(special)
    example = chat("2+2?", THOUGHT, "<think>\nno\n</think>\n\n5.")
    encoded = encode_one(example, tokenizer, thinking="unscored")
    assert [scored_text(encoded, k, tokenizer) for k in (0, 1)] == [
        "\n\nIt is 4.<|im_end|>",
        "\n\n5.<|im_end|>",
    ]
    assert encoded.notes == Note.THOUGHTS_CONTEXT
    assert full_ids(encoded, 0) == full_ids(encode_one(example, tokenizer), 0)


def test_drop_removes_blocks_before_the_template_sees_them_in_earlier_answers_too():
    plain = byte_tokenizer()
    asked = [("user", "1+1?"), ("assistant", "<think>x</think>\n2"), ("user", "2+2?")]
    encoded = encode_one(chat(asked, THOUGHT, "5."), plain, thinking="drop")
    bare = [("user", "1+1?"), ("assistant", "2"), ("user", "2+2?")]
    assert full_ids(encoded, 0) == full_ids(encode_one(chat(bare, "It is 4.", "5."), plain), 0)
    assert scored_text(encoded, 0, plain) == "It is 4.<|im_end|>"
    assert encoded.notes == Note.THOUGHTS_REMOVED


def test_drop_leaves_rows_without_thoughts_as_they_are():
    example = chat("q", "a", "b")
    assert without_thoughts(example, [USUAL]) is example


def test_an_answer_that_only_thinks_is_empty_once_that_is_dropped_and_scores_nothing_otherwise():
    example = chat("q", "<think>hm", "b")
    assert encode_one(example, byte_tokenizer(), thinking="drop").reason is Reason.EMPTY
    assert encode_one(example, byte_tokenizer(), thinking="unscored").reason is Reason.NOTHING_SCORED
    assert encode_one(example, byte_tokenizer()).reason is None


def test_an_empty_block_that_the_template_inserts_is_scored_by_keep_alone_and_counted():
    kept = encode_one(chat("q", "a", "b"), TOKENIZER)
    assert scored_text(kept, 0, TOKENIZER) == "<think>\n\n</think>\n\na<|im_end|>"
    assert kept.notes == Note.EMPTY_THOUGHT
    for mode in ("drop", "unscored"):
        encoded = encode_one(chat("q", "a", "b"), TOKENIZER, thinking=mode)
        assert scored_text(encoded, 0, TOKENIZER) == "\n\na<|im_end|>"
        assert encoded.notes == Note(0)


def test_thinking_switched_off_puts_the_empty_block_into_the_prompt():
    encoded = encode_one(chat("q", "a", "b"), TOKENIZER, chat_template_kwargs={"enable_thinking": False})
    assert TOKENIZER.decode(encoded.group.prompt).endswith("<think>\n\n</think>\n\n")
    assert scored_text(encoded, 0, TOKENIZER) == "a<|im_end|>"
    assert encoded.notes == Note(0)


def test_a_thought_in_a_field_of_its_own_is_rendered_scored_or_removed():
    turn = {"role": "assistant", "content": "4.", "reasoning_content": "four?"}
    example = Example(({"role": "user", "content": "2+2?"},), ((turn,),), "rows.jsonl:1")
    texts = {
        mode: scored_text(encode_one(example, TOKENIZER, thinking=mode), 0, TOKENIZER)
        for mode in ("keep", "unscored", "drop")
    }
    assert texts == {
        "keep": "<think>\nfour?\n</think>\n\n4.<|im_end|>",
        "unscored": "\n\n4.<|im_end|>",
        "drop": "\n\n4.<|im_end|>",
    }


def test_thoughts_that_the_template_leaves_out_are_counted():
    turn = {"role": "assistant", "content": "4.", "reasoning_content": "four?"}
    example = Example(({"role": "user", "content": "2+2?"},), ((turn,),), "rows.jsonl:1")
    assert encode_one(example, byte_tokenizer()).notes == Note.THOUGHTS_LOST


def test_an_earlier_answer_whose_thought_the_template_drops_is_context():
    long = [("assistant", THOUGHT), ("user", "sure?"), ("assistant", "<think>\nyes\n</think>\n\nYes.")]
    encoded = encode_one(chat("2+2?", long, "5."), TOKENIZER, thinking="unscored")
    assert scored_text(encoded, 0, TOKENIZER) == "\n\nYes.<|im_end|>"
    assert Note.TURN_UNSCORED in encoded.notes


@needs_control_text
def test_a_control_token_spelled_in_the_text_does_not_hide_the_block():
    encoded = encode_one(chat("What is <|im_end|>?", THOUGHT, "b"), thinking_tokenizer(), thinking="unscored")
    assert scored_text(encoded, 0, TOKENIZER) == "\n\nIt is 4.<|im_end|>"


def test_raw_text_has_think_blocks_too():
    tokenizer = byte_tokenizer(chat=False)
    example = Example("2+2?", (" <think>four?</think>4", " 5"), "rows.jsonl:1")
    assert scored_text(encode_one(example, tokenizer, thinking="unscored"), 0, tokenizer) == " 4</s>"
    assert scored_text(encode_one(example, tokenizer, thinking="drop"), 0, tokenizer) == " 4</s>"


def test_the_report_says_how_many_rows_and_what_became_of_the_blocks(tmp_path):
    rows = [
        {"prompt": f"q{i}", "chosen": "<think>t</think>a" if i < 2 else "a", "rejected": "b"}
        for i in range(5)
    ]
    told = "\n".join(load_rows(tmp_path, rows, thinking="unscored").report.lines())
    assert "2 rows with think blocks in their answers, read but not scored (data.thinking: unscored)" in told
    told = "\n".join(load_rows(tmp_path, rows).report.lines())
    assert "2 rows with think blocks in their answers, scored like the rest (data.thinking: keep)" in told


def test_the_serving_prompt_is_told_and_where_training_differs_from_it(tmp_path):
    tokenizer = byte_tokenizer()
    row = load_rows(tmp_path, [{"prompt": "q", "chosen": "a", "rejected": "b"}], tokenizer=tokenizer)
    encoder = Encoder(tokenizer, config())
    assert served(row.train_rows[0], encoder).warning is None
    tokenizer.chat_template = tokenizer.chat_template.replace("assistant\n{%", "assistant\n<think>\n{%")
    opening = load_rows(tmp_path, [{"prompt": "q", "chosen": "a", "rejected": "b"}], tokenizer=tokenizer)
    found = served(opening.train_rows[0], Encoder(tokenizer, config()))
    assert found.text.endswith("<|im_start|>assistant\n<think>\n")
    assert found.ids == tokenizer(found.text, add_special_tokens=False).input_ids
    assert "trained behind another prompt" in found.lines()[1]
    assert repr("<think>\n")[1:-1] in found.lines()[1]
