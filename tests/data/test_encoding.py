"""Examples to tokens: the shared prompt, the scored tokens and the end token."""

from __future__ import annotations

import numpy as np
import pytest
from tokenizers.processors import TemplateProcessing

from dpo_cli.data.row_notes import Note, Reason
from dpo_cli.data.tokenize.encode import Encoder
from dpo_cli.data.tokenize.template import keeps_control_text
from dpo_cli.data.tokenize.tokenizer import tokenizer_digest
from dpo_cli.types import Example
from tests.data.build import chat, config, encode_one, full_ids, needs_control_text, scored_text, turns
from tests.fakes import CHAT_TEMPLATE, byte_tokenizer, pair_rows

TOKENIZER = byte_tokenizer()


def rendered(tokenizer, messages, **options):
    return tokenizer.apply_chat_template(list(messages), tokenize=True, return_dict=False, **options)


def test_plain_rows_are_exactly_what_the_template_gives_up_to_the_end_token():
    example = chat("How é?", "Fine.\n\n ", "Bad.")
    encoded = encode_one(example, TOKENIZER)
    for k, completion in enumerate(example.completions):
        whole = rendered(TOKENIZER, [*example.prompt, *completion])
        assert full_ids(encoded, k) == whole[:-1]
        assert whole[-2] == TOKENIZER.eos_token_id
    assert encoded.group.prompt.tolist() == rendered(TOKENIZER, example.prompt, add_generation_prompt=True)


def test_the_end_token_is_scored_and_the_prompt_is_not():
    encoded = encode_one(chat("Hi?", "Yes.", "No."), TOKENIZER)
    assert [scored_text(encoded, k, TOKENIZER) for k in (0, 1)] == ["Yes.<|im_end|>", "No.<|im_end|>"]
    assert encoded.notes == Note(0)


def test_fault_058_turns_of_users_and_tools_in_a_completion_are_context():
    call = [{"type": "function", "function": {"name": "f", "arguments": {}}}]
    answer = [
        {"role": "assistant", "content": "look", "tool_calls": call},
        *turns(("tool", "42"), ("assistant", "It is 42.")),
    ]
    example = Example(turns(("user", "q")), (tuple(answer), turns(("assistant", "no idea"))), "rows.jsonl:1")
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = CHAT_TEMPLATE.replace(
        "<|im_end|>", "{% for call in message.tool_calls %} {{ call.function.name }}(){% endfor %}<|im_end|>"
    )
    encoded = encode_one(example, tokenizer)
    assert scored_text(encoded, 0, tokenizer) == "look f()<|im_end|>It is 42.<|im_end|>"
    assert full_ids(encoded, 0) == rendered(tokenizer, [*example.prompt, *answer])[:-1]


def test_fault_058_tools_are_rendered_and_not_scored():
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = "{% if tools %}TOOLS {{ tools | tojson }}{% endif %}" + CHAT_TEMPLATE
    encoded = encode_one(chat("q", "a", "b", tools=[{"name": "lookup"}]), tokenizer)
    assert "lookup" in tokenizer.decode(encoded.group.prompt)
    assert scored_text(encoded, 0, tokenizer) == "a<|im_end|>"


def test_system_prompt_and_template_arguments_of_the_recipe_yield_to_the_row():
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = "[{{ mood }}]" + CHAT_TEMPLATE
    options = {"system": "Be kind.", "chat_template_kwargs": {"mood": "calm"}}
    own = chat([("system", "Mine."), ("user", "q")], "a", "b", template_kwargs={"mood": "gay"})
    texts = [
        tokenizer.decode(encode_one(e, tokenizer, **options).group.prompt) for e in (chat("q", "a", "b"), own)
    ]
    assert texts[0].startswith("[calm]<|im_start|>system\nBe kind.<|im_end|>")
    assert texts[1].startswith("[gay]<|im_start|>system\nMine.<|im_end|>")


@pytest.mark.parametrize("special", ["</s>", "<s>", "<|im_start|>", "<|im_end|>"])
@needs_control_text
def test_fault_057_special_token_text_in_content_becomes_plain_text(special):
    plain = TOKENIZER(special, split_special_tokens=True, add_special_tokens=False).input_ids
    for example in (chat(f"a {special} b", "x", "y"), chat("q", f"x {special} z", "y")):
        encoded = encode_one(example, TOKENIZER)
        assert encoded.reason is None
        clean = encode_one(chat("q", "x", "y"), TOKENIZER)
        control = [i for i in full_ids(encoded, 0) if i in TOKENIZER.all_special_ids]
        assert control == [i for i in full_ids(clean, 0) if i in TOKENIZER.all_special_ids]
        assert bytes(str(plain), "utf8")[1:-1] in bytes(str(full_ids(encoded, 0)), "utf8")


def test_fault_057_special_token_text_is_dropped_where_it_cannot_be_kept(monkeypatch):
    """Transformers before 5.20 would make control tokens of it."""
    digest = tokenizer_digest(TOKENIZER)
    monkeypatch.setattr("dpo_cli.data.tokenize.template.keeps_control_text", lambda _tokenizer: False)
    monkeypatch.setattr("dpo_cli.data.tokenize.tokenizer.keeps_control_text", lambda _tokenizer: False)
    assert encode_one(chat("a </s> b", "x", "y"), TOKENIZER).reason is Reason.CONTROL_TEXT
    assert encode_one(chat("a b", "x", "y"), TOKENIZER).reason is None
    assert (tokenizer_digest(TOKENIZER) == digest) is not keeps_control_text(TOKENIZER)


def test_fault_057_special_token_text_in_raw_text_becomes_plain_text():
    encoded = encode_one(Example("a </s> b", (" <s> c", " d"), "rows.jsonl:1"), byte_tokenizer(chat=False))
    assert [i for i in full_ids(encoded, 0) if i < 5] == [byte_tokenizer(chat=False).eos_token_id]


def test_raw_text_gets_the_bos_the_tokenizer_adds_once_and_its_end_token():
    tokenizer = byte_tokenizer(chat=False)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    encoded = encode_one(Example("Q: hi A:", (" yes", " no"), "rows.jsonl:1"), tokenizer)
    text = tokenizer("Q: hi A: yes", add_special_tokens=False).input_ids
    assert full_ids(encoded, 0) == [1, *text, tokenizer.eos_token_id]
    assert scored_text(encoded, 0, tokenizer) == " yes</s>"


def test_a_tokenizer_that_adds_its_own_end_token_is_not_given_another():
    tokenizer = byte_tokenizer(chat=False)
    eos = tokenizer.eos_token_id
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", eos)]
    )
    encoded = encode_one(Example("Q", (" yes", " no"), "rows.jsonl:1"), tokenizer)
    assert full_ids(encoded, 0).count(eos) == 1


def test_a_boundary_that_merges_moves_the_shared_prefix_and_is_counted():
    tokenizer = merging_tokenizer()
    encoded = encode_one(Example("A:", (":x", "y"), "rows.jsonl:1"), tokenizer)
    assert encoded.notes == Note.BOUNDARY
    assert tokenizer.decode(encoded.group.prompt) == "A"
    assert [tokenizer.decode(ids) for ids in encoded.group.completions] == ["::x</s>", ":y</s>"]
    assert [mask.tolist() for mask in encoded.group.masks] == [[True] * 3, [False, True, True]]


def merging_tokenizer():
    """The byte tokenizer, in which two colons make one token."""
    import json

    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    plain = byte_tokenizer(chat=False)
    backend = json.loads(plain.backend_tokenizer.to_str())
    backend["model"]["vocab"]["::"] = 290
    backend["model"]["merges"] = [[":", ":"]]
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(backend)), eos_token="</s>", bos_token="<s>"
    )


def test_fault_071_masks_come_from_lengths_and_pad_may_be_the_end_token():
    tokenizer = byte_tokenizer()
    with_pad = encode_one(chat("q", "a", "b"), tokenizer).group
    tokenizer.pad_token = tokenizer.eos_token
    with_eos = encode_one(chat("q", "a", "b"), tokenizer).group
    tokenizer.pad_token = None
    without = encode_one(chat("q", "a", "b"), tokenizer).group
    assert with_pad.keys == with_eos.keys == without.keys
    assert with_eos.masks[0][-1]


def test_completions_that_a_template_makes_equal_are_dropped():
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = CHAT_TEMPLATE.replace("message['content']", "message['content'] | trim")
    assert encode_one(chat("q", "a", "a "), tokenizer).reason is Reason.IDENTICAL


@needs_control_text
def test_an_example_encodes_alone_as_it_does_among_others():
    examples = [chat(row["prompt"], row["chosen"], row["rejected"]) for row in pair_rows(20)]
    examples.insert(7, Example("raw", (" a", " b"), "rows.jsonl:8"))
    examples.insert(3, chat("<s>", "a", "b"))
    together = Encoder(TOKENIZER, config()).encode(examples)
    alone = [encode_one(example, TOKENIZER) for example in examples]
    assert [e.group.keys for e in together] == [e.group.keys for e in alone]


def test_three_completions_share_one_prompt():
    group = encode_one(chat("q", "a", "b", "ab"), TOKENIZER).group
    assert [len(ids) for ids in group.completions] == [2, 2, 3]
    assert all(ids.dtype == np.int32 for ids in (group.prompt, *group.completions))


def test_serving_prompt_is_the_prompt_of_the_group():
    text, ids = Encoder(TOKENIZER, config(system="Be kind.")).serving_prompt(chat("q", "a", "b"))
    assert text.startswith("<|im_start|>system\nBe kind.") and text.endswith("<|im_start|>assistant\n")
    assert ids == encode_one(chat("q", "a", "b"), TOKENIZER, system="Be kind.").group.prompt.tolist()


def test_an_unknown_token_at_the_end_of_an_answer_is_no_end_token():
    tokenizer = byte_tokenizer()
    tokenizer.unk_token = "<pad>"
    encoder = Encoder(tokenizer, config())
    assert encoder.vocabulary.can_end(tokenizer.eos_token_id)
    assert not encoder.vocabulary.can_end(tokenizer.unk_token_id)
    assert encoder.vocabulary.spells_control({"content": "a <pad>"})


def test_plain_text_without_a_bos_scores_all_but_its_first_token():
    text = Example("", ("The sea is blue.",), "rows.jsonl:1")
    tokenizer = byte_tokenizer()
    encoded = encode_one(text, tokenizer)
    assert scored_text(encoded, 0, tokenizer) == "he sea is blue.<|im_end|>"
    assert encoded.group.prompt.tolist() == tokenizer("T", add_special_tokens=False).input_ids
    assert Encoder(tokenizer, config()).serving_prompt(text) == ("", encoded.group.prompt.tolist())
