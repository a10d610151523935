"""`data.control_tokens`: tokens that rows spell and mean, as fill-in-the-middle data do."""

from __future__ import annotations

from typing import Any

import pytest

from dpo_cli.data.row_notes import Reason
from dpo_cli.data.tokenize.encode import Encoder
from dpo_cli.errors import ModelError
from dpo_cli.types import Example
from tests.data.build import chat, config, encode_one, full_ids, load_rows, needs_control_text, scored_text
from tests.fakes import byte_tokenizer

HOLE, AFTER = "<|hole|>", "<|after|>"
MEANT = {"control_tokens": [HOLE, AFTER]}
ROW = Example(f"def add(a, b):{HOLE}\n    return c{AFTER}", ("\n    c = a + b", "\n    pass"), "rows.jsonl:1")


def coder(is_chat: bool = False) -> Any:
    tokenizer = byte_tokenizer(chat=is_chat)
    tokenizer.add_special_tokens(
        {"additional_special_tokens": [HOLE, AFTER]}, replace_extra_special_tokens=False
    )
    return tokenizer


def test_named_tokens_are_tokens_and_without_names_text():
    tokenizer = coder()
    ids = tokenizer.convert_tokens_to_ids([HOLE, AFTER])
    assert not set(ids) & set(full_ids(encode_one(ROW, tokenizer), 0))
    meant = encode_one(ROW, tokenizer, **MEANT)
    assert [token for token in meant.group.prompt.tolist() if token in ids] == ids
    assert scored_text(meant, 0, tokenizer) == "\n    c = a + b</s>"


def test_a_meant_token_at_the_end_of_an_answer_is_not_its_end():
    tokenizer = coder()
    row = Example("f", (f"g{HOLE}", "h"), "rows.jsonl:1")
    assert scored_text(encode_one(row, tokenizer, **MEANT), 0, tokenizer) == f"g{HOLE}</s>"


def test_rows_with_tokens_that_are_not_meant_keep_them_as_text_or_are_dropped_where_both_are_there():
    tokenizer = coder()
    both = Example(f"{HOLE}a</s>", ("b", "c"), "rows.jsonl:2")
    other = Example("a</s>", ("b", "c"), "rows.jsonl:3")
    kept, dropped, plain = Encoder(tokenizer, config(**MEANT)).encode([ROW, both, other])
    assert kept.reason is None
    assert dropped.reason is Reason.CONTROL_TEXT
    assert full_ids(plain, 0) == full_ids(encode_one(other, tokenizer), 0)
    assert tokenizer.eos_token_id not in plain.group.prompt


@needs_control_text
def test_messages_may_mean_tokens_too():
    tokenizer = coder(is_chat=True)
    row = chat(f"Fill {HOLE}.", "a", "b")
    (hole,) = tokenizer.convert_tokens_to_ids([HOLE])
    assert hole not in full_ids(encode_one(row, tokenizer), 0)
    assert full_ids(encode_one(row, tokenizer, **MEANT), 0).count(hole) == 1
    both = chat(f"Fill {HOLE} and <|im_end|>.", "a", "b")
    assert encode_one(both, tokenizer, **MEANT).reason is Reason.CONTROL_TEXT


def test_a_name_that_is_no_control_token_is_refused_with_those_that_are():
    with pytest.raises(
        ModelError,
        match=r"data.control_tokens: '<\|hol\|>' is no control token of the tokenizer. Fix: some of: .*<\|hole\|>",
    ):
        encode_one(ROW, coder(), control_tokens=["<|hol|>"])


def test_the_cache_tells_rows_with_meant_tokens_from_rows_without(tmp_path):
    rows = [{"prompt": ROW.prompt, "chosen": "a", "rejected": "b"}]
    plain, meant = (
        load_rows(tmp_path, rows, tokenizer=coder(), source={"chat": False}, **fields).train[0]
        for fields in ({}, MEANT)
    )
    assert len(meant.prompt) < len(plain.prompt)
