"""Rows to examples: each format by its own sample, and detection that never guesses."""

from __future__ import annotations

import pytest

from dpo_cli.data import formats
from dpo_cli.data.formats._base import Format
from dpo_cli.data.row_notes import Reason
from dpo_cli.data.tokenize.encode import Encoder
from dpo_cli.errors import DataError, RecipeError
from tests.data.build import config, parse, turns
from tests.fakes import byte_tokenizer

FORMATS = [formats.get(name) for name in formats.names()]
QUESTION, ANSWER, OTHER = turns(("user", "q")), turns(("assistant", "a")), turns(("assistant", "b"))


def row(prompt=None, chosen=(), rejected=(), **fields):
    columns = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in columns.items() if v is not None} | fields


def stated(layout):
    """What has to be said of a format's own sample: an order of answers is never taken for their ranking."""
    return {"format": "ranking"} if layout.name == "ranking" else {}


@pytest.mark.parametrize("layout", FORMATS, ids=lambda layout: layout.name)
def test_sample_is_detected_as_its_own_format_and_gives_what_its_kind_says(layout: Format):
    parsed = parse([layout.sample] * 2, **stated(layout))
    assert parsed.format is layout
    assert (len(parsed.examples[0].completions) > 1) == (layout.kind == "pairs")
    assert (parsed.examples[0].label is None) == (layout.kind != "labelled")
    assert parsed.examples[0].source == "rows.jsonl:1"
    assert set(layout.columns) <= set(layout.sample)


def test_all_formats_say_the_same_of_one_conversation():
    examples = [
        parse([layout.sample], **stated(layout)).examples[0]
        for layout in FORMATS
        if layout.name != "plain_text"
    ]
    best = {str((example.prompt, example.completions[0])) for example in examples}
    worst = {str(example.completions[-1]) for example in examples if len(example.completions) > 1}
    assert (len(best), len(worst)) == (1, 1)


def test_unknown_format_lists_the_known_ones():
    with pytest.raises(
        RecipeError,
        match=r"unknown format 'nope'. Fix: one of: auto, conversation, labelled, labelled_conversation, pairs",
    ):
        parse([row("p", "c", "r")], format="nope")


def test_mixed_layouts_are_refused_with_counts():
    rows = [row("p", "c", "r")] * 3 + [{"prompt": "p", "completion": "c"}] * 2
    with pytest.raises(DataError, match=r"rows of more than one layout \(pairs: 3 rows, targets: 2 rows\)"):
        parse(rows)


def test_text_and_messages_may_stand_in_one_file_and_in_one_row():
    parsed = parse([row("q", "a", "b"), row(QUESTION, ANSWER, "b"), row("q", ANSWER, OTHER)])
    assert [example.prompt for example in parsed.examples] == [QUESTION] * 3
    assert [example.completions[0] for example in parsed.examples] == [ANSWER] * 3


def test_text_prompt_beside_conversations_that_hold_it_is_read_as_conversations():
    example = parse([row("q", QUESTION + ANSWER, QUESTION + OTHER)]).examples[0]
    assert (example.prompt, example.completions) == (QUESTION, (ANSWER, OTHER))


def test_text_prompt_beside_conversations_that_lack_it_is_refused():
    with pytest.raises(DataError, match=r"rows\.jsonl:1: "):
        parse([row("another", QUESTION + ANSWER, QUESTION + OTHER)])


def test_implicit_prompt_splits_on_turns_and_keeps_one_for_each_completion():
    history = turns(("user", "q"), ("assistant", "h"), ("user", "q2"))
    example = parse([row(None, history + ANSWER, history + OTHER)]).examples[0]
    assert (example.prompt, example.completions) == (history, (ANSWER, OTHER))
    longer = ANSWER + turns(("user", "more"), ("assistant", "z"))
    example = parse([row(None, QUESTION + ANSWER, QUESTION + longer)]).examples[0]
    assert (example.prompt, example.completions) == (QUESTION, (ANSWER, longer))


def test_implicit_prompts_that_differ_are_counted():
    parsed = parse([row(None, QUESTION + ANSWER, turns(("user", "x")) + ANSWER)])
    assert parsed.dropped == {Reason.PROMPTS_DIFFER: 1}


def test_hh_prompts_that_differ_are_counted_and_speakers_in_a_row_joined():
    start = "\n\nHuman: a\n\nHuman: b"
    good = row(None, f"{start}\n\nAssistant: c", f"{start}\n\nAssistant: d")
    parsed = parse([good, row(None, f"{start}\n\nAssistant: c", "\n\nHuman: a\n\nAssistant: d")])
    assert parsed.dropped == {Reason.PROMPTS_DIFFER: 1}
    assert parsed.examples[0].prompt == turns(("user", "a\n\nb"))


def test_hh_as_raw_text_keeps_every_character():
    transcript = "\n\nHuman: a \n\nAssistant: b\n\nHuman: c\n\nAssistant:  d "
    example = parse([row(None, transcript, transcript + "e")], chat=False).examples[0]
    assert isinstance(example.prompt, str)
    assert [example.prompt + completion for completion in example.completions] == [
        transcript,
        transcript + "e",
    ]
    assert example.prompt.endswith("\n\nAssistant:")


def test_chat_null_follows_the_tokenizer():
    rows = [row("p", "c", "r")]
    assert parse(rows, has_template=False).examples[0].prompt == "p"
    assert parse(rows, has_template=True).examples[0].prompt == turns(("user", "p"))
    assert parse(rows, has_template=True, chat=False).examples[0].prompt == "p"
    with pytest.raises(
        DataError, match=r"holds messages, and chat: false .*\. Fix: data\.train\[0\]\.chat=null"
    ):
        parse([row(QUESTION, ANSWER, OTHER)], chat=False)


@pytest.mark.parametrize(
    ("prompt", "chosen", "told"),
    [
        (QUESTION, turns(("narrator", "a")), "\"chosen[0]\" has role 'narrator'"),
        (QUESTION, ANSWER + QUESTION, "\"chosen\" ends with role 'user'"),
        (QUESTION, turns(("tool", "a")) + ANSWER, "\"chosen\" starts with role 'tool'"),
        (QUESTION + ANSWER, ANSWER, "the prompt ends with the assistant"),
    ],
)
def test_fault_058_bad_roles_and_completions_that_do_not_end_with_the_assistant_name_the_line(
    prompt, chosen, told
):
    with pytest.raises(DataError) as error:
        parse([row(QUESTION, ANSWER, OTHER), row(prompt, chosen, turns(("assistant", "z")))])
    assert f"rows.jsonl:2: {told}" in str(error.value)


def test_tools_and_template_arguments_are_taken_from_their_columns():
    tools = [{"type": "function", "function": {"name": "f"}}]
    example = parse([row(QUESTION, ANSWER, OTHER, tools=tools, chat_template_kwargs={"x": 1})]).examples[0]
    assert (example.tools, example.template_kwargs) == (tools, {"x": 1})
    with pytest.raises(DataError, match='"tools" is a number'):
        parse([row(QUESTION, ANSWER, OTHER, tools=3)])


def test_null_fields_of_parquet_messages_are_removed():
    question = [{**QUESTION[0], "tool_calls": None, "name": None}]
    assert parse([row(question, ANSWER, OTHER)]).examples[0].prompt == QUESTION


def test_images_are_refused_in_one_line():
    with pytest.raises(DataError) as error:
        parse([row("p", "c", "r", images=[])] + [row("p", "c", "r", images=["a.png"])] * 30)
    assert (
        str(error.value)
        == 'rows.jsonl:2: "images" is not empty: only text is trained on. Fix: rows without it'
    )


def test_parts_of_a_content_are_joined_if_all_are_text():
    def asked(*parts):
        return [{"role": "user", "content": list(parts)}]

    text = [{"type": "text", "text": part} for part in ("one ", "two")]
    assert parse([row(asked(*text), ANSWER, OTHER)]).examples[0].prompt == turns(("user", "one two"))
    with pytest.raises(DataError, match=r'"prompt\[0\]\.content" holds a part that is not text'):
        parse([row(asked({"type": "image_url", "image_url": {}}), ANSWER, OTHER)])


def test_messages_spelled_as_text_are_refused():
    with pytest.raises(
        DataError,
        match=r'rows\.jsonl:1: 1 of 1 rows have a JSON list or object, spelled as text, in "chosen"',
    ):
        parse([row("p", "[{'role': 'assistant', 'content': 'c'}]", "r")])


def test_sharegpt_speakers_become_roles_and_a_system_column_stands_in_front():
    talk = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}, {"from": "human", "value": "q2"}]
    answer = {"from": "gpt", "value": "a2"}
    pair = {"conversations": talk, "chosen": answer, "rejected": {**answer, "value": "b"}, "system": "s"}
    (example,) = parse([pair]).examples
    assert example.prompt == turns(("system", "s"), ("user", "q"), ("assistant", "a"), ("user", "q2"))
    labelled = parse([{"conversations": [*talk, answer], "label": False}]).examples[0]
    assert (labelled.prompt, labelled.completions) == (example.prompt[1:], (turns(("assistant", "a2")),))
    target = parse([{"conversations": [*talk, answer]}]).examples[0]
    assert [len(target.prompt), len(target.completions[0])] == [1, 3]
    with pytest.raises(DataError, match=r"\"conversations\[0\]\" has role 'alien'; known roles: .*human"):
        parse([{**pair, "conversations": [{"from": "alien", "value": "q"}]}], format="sharegpt_pairs")


def test_a_system_column_stands_in_front_of_any_layout_unless_its_messages_have_one():
    (chat,) = parse([row("p", "c", "r", system="s")]).examples
    assert chat.prompt == turns(("system", "s"), ("user", "p"))
    (plain,) = parse([row("p", "c", "r", system="s")], chat=False).examples
    assert plain.prompt == "s\n\np"
    own = turns(("system", "own"), ("user", "q"))
    assert parse([row(own, ANSWER, OTHER, system="s")]).examples[0].prompt == own
    assert parse([row("p", "c", "r", system=None)]).examples[0].prompt == turns(("user", "p"))
    with pytest.raises(DataError, match='"system" is a number, not text'):
        parse([row("p", "c", "r", system=3)])


def test_an_answer_that_calls_tools_is_labelled_from_its_first_turn():
    calls = [{"type": "function", "function": {"name": "f", "arguments": {}}}]
    talk = [*QUESTION, {"role": "assistant", "tool_calls": calls}, {"role": "tool", "content": "1"}, *ANSWER]
    (example,) = parse([{"messages": talk, "label": True}]).examples
    assert example.prompt == QUESTION
    assert [turn["role"] for turn in example.completions[0]] == ["assistant", "tool", "assistant"]


def test_rows_that_fit_no_format_name_the_nearest_one():
    with pytest.raises(
        DataError, match=r"no format fits the rows, plain_text comes nearest.*format=plain_text"
    ):
        parse([{"text": "a film", "label": 1}])
    with pytest.raises(
        DataError, match=r"'label' may say .* plain_text leaves it out. Fix: .*ignore=\[\"label\"\]"
    ):
        parse([{"text": "a film", "label": 1}] * 2 + [{"text": "b", "label": 0}], format="plain_text")
    parsed = parse([{"text": "a film", "label": 1}], format="plain_text", ignore=["label"])
    assert parsed.examples[0].completions == ("a film",)


def test_two_plausible_layouts_are_refused_with_both():
    both = {**row("p", "c", "r"), "answer_a": "a", "answer_b": "b", "winner": "a"}
    with pytest.raises(DataError, match=r"rows fit more than one format \(pairs/winner: 2 rows\)"):
        parse([both] * 2)


WEIGHED = [
    {"role": "user", "content": "q"},
    {"role": "assistant", "content": "first", "weight": 0},
    {"role": "user", "content": "q2"},
    {"role": "assistant", "content": "second", "weight": 1},
]


@pytest.mark.parametrize("key", ["weight", "loss", "train"])
def test_a_message_that_is_not_to_be_trained_on_is_context(key):
    talk = [{key: turn["weight"], **turn} if "weight" in turn else turn for turn in WEIGHED]
    talk = [
        {name: value for name, value in turn.items() if name in ("role", "content", key)} for turn in talk
    ]
    (example,) = parse([{"messages": talk}], format="conversation").examples
    (result,) = Encoder(byte_tokenizer(), config()).encode([example])
    (ids,), (mask,) = result.group.completions, result.group.masks
    assert byte_tokenizer().decode(ids[mask]) == "second<|im_end|>"
    assert "first" in byte_tokenizer().decode(ids) and key not in byte_tokenizer().decode(ids)


def test_a_conversation_of_which_nothing_is_trained_on_is_counted():
    parsed = parse([{"messages": WEIGHED[:2]}, {"messages": WEIGHED}])
    assert parsed.dropped == {Reason.NOTHING_SCORED: 1}
    with pytest.raises(DataError, match=r'"messages\[1\]\.weight" is 0\.5, neither 0 nor 1'):
        parse([{"messages": [WEIGHED[0], {**WEIGHED[1], "weight": 0.5}]}])


def test_a_mark_on_a_turn_of_the_prompt_changes_nothing():
    marked = [{**turn, "weight": 0} if turn["role"] == "assistant" else turn for turn in WEIGHED[:3]]
    plain = [{"role": turn["role"], "content": turn["content"]} for turn in WEIGHED[:3]]
    one, other = (parse([row(talk, ANSWER, OTHER)]).examples[0].prompt for talk in (marked, plain))
    assert one == other


@pytest.mark.parametrize(
    "said",
    [
        {"tool_calls": [{"type": "function", "function": {"name": "dig", "arguments": '{"depth": 2}'}}]},
        {"tool_calls": '[{"type": "function", "function": {"name": "dig", "arguments": {"depth": 2}}}]'},
        {"function_call": {"name": "dig", "arguments": '{"depth": 2}'}, "content": None},
    ],
    ids=["arguments as text", "calls as text", "one call by its older name"],
)
def test_calls_become_a_list_whose_arguments_are_an_object(said):
    (example,) = parse([row(QUESTION, [{"role": "assistant", **said}], ANSWER)]).examples
    (answer,) = example.completions[0]
    call = {"type": "function", "function": {"name": "dig", "arguments": {"depth": 2}}}
    assert answer == {"role": "assistant", "content": "", "tool_calls": [call]}


def test_calls_that_are_no_list_are_named_with_their_place():
    answer = {"role": "assistant", "content": "a", "tool_calls": "dig(2)"}
    with pytest.raises(DataError, match=r'"chosen\[0\]\.tool_calls" is text, not a list of calls'):
        parse([row(QUESTION, [answer], ANSWER)])
