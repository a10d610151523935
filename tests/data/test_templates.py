"""Chat templates of every temper: what they break is found before training, what they change is counted."""

from __future__ import annotations

import pytest

from dpo_cli.data.row_notes import Note, Reason
from dpo_cli.data.tokenize.template import Renderer, check_template
from dpo_cli.data.tokenize.tokenizer import load_tokenizer, tokenizer_digest
from dpo_cli.errors import ModelError
from dpo_cli.recipe.schema import Model
from tests.data.build import chat, encode_one, full_ids, scored_text, turns
from tests.fakes import CHAT_TEMPLATE, byte_tokenizer, write_model

LOOP = "{% for a in range(30000) %}{% for b in range(300) %}{% set c = a * b %}{% endfor %}{% endfor %}"
HISTORY = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' and not loop.last %}{{ m['content'].split('</think>')[-1] }}"
    "{% else %}{{ m['content'] }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)
"""Opens an answer with a thinking tag and strips the thoughts of earlier answers."""


def with_template(template):
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "tiny")


def test_fault_073_messages_without_a_template_are_refused_with_the_fix():
    with pytest.raises(ModelError, match=r"no chat template. Fix: model.chat_template=PATH") as error:
        encode_one(chat("q", "a", "b"), byte_tokenizer(chat=False))
    assert error.value.code == 4


def test_fault_073_a_doubled_bos_is_refused_with_the_ids():
    with pytest.raises(ModelError, match=r"doubles the BOS token: ids \[1, 1, 3, "):
        encode_one(chat("q", "a", "b"), with_template("{{ bos_token }}{{ bos_token }}" + CHAT_TEMPLATE))


def test_the_bos_of_the_template_is_the_only_one():
    encoded = encode_one(chat("q", "a", "b"), with_template("{{ bos_token }}" + CHAT_TEMPLATE))
    assert full_ids(encoded, 0).count(1) == 1


def test_fault_073_a_dropped_system_prompt_is_refused_with_what_the_model_would_see():
    deaf = with_template(
        "{% set messages = messages | rejectattr('role', 'equalto', 'system') %}" + CHAT_TEMPLATE
    )
    assert encode_one(chat("q", "a", "b"), deaf).reason is None
    with pytest.raises(
        ModelError, match=r"leaves out; the model would see '<\|im_start\|>user.*data.system=null"
    ):
        encode_one(chat("q", "a", "b"), deaf, system="Be kind.")
    said = r"rows.jsonl:1: 1 of 1 rows have a system prompt, which the chat template leaves out.*data.merge_system=true"
    with pytest.raises(ModelError, match=said):
        encode_one(chat([("system", "s"), ("user", "q")], "a", "b"), deaf)


@pytest.mark.parametrize(
    "template",
    ["{{ raise_exception('no!') }}", "{{ 'a' + 1 }}", "{% if %}", "{{ nothing.at.all }}", "{{ 1 / 0 }}"],
)
def test_fault_073_a_template_that_raises_names_the_row(template):
    with pytest.raises(ModelError, match=r"rows.jsonl:1: the chat template fails: "):
        encode_one(chat("q", "a", "b"), with_template(template))


def test_fault_074_an_endless_template_is_stopped():
    with pytest.raises(ModelError, match=r"took more than 0.2 s"):
        check_template(Renderer(with_template(LOOP)), [chat("q", "a", "b")], limit_s=0.2)


def test_fault_074_a_huge_template_is_refused(model_dir, tmp_path):
    (tmp_path / "huge.jinja").write_text("x" * 10_000_000)
    with pytest.raises(ModelError, match=r"more than 1,048,576 characters"):
        load_tokenizer(Model(name=str(model_dir), chat_template=str(tmp_path / "huge.jinja")))


def test_fault_072_no_end_token_is_refused_with_the_fix(tmp_path):
    tokenizer = byte_tokenizer(chat=False)
    tokenizer.eos_token = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"Fix: model\.eos_token=") as error:
        load_tokenizer(Model(name=str(tmp_path)))
    assert error.value.code == 4
    assert load_tokenizer(Model(name=str(tmp_path), eos_token="</s>")).eos_token == "</s>"
    with pytest.raises(ModelError, match="'<end>' is no token of"):
        load_tokenizer(Model(name=str(tmp_path), eos_token="<end>"))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("/no/such/folder", "no such folder"),
        ("no-such-org/no-such-model", "neither a folder nor reachable"),
        (".", "no tokenizer in"),
    ],
)
def test_fault_070_each_kind_of_missing_tokenizer_has_its_own_line(tmp_path, monkeypatch, name, told):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=told) as error:
        load_tokenizer(Model(name=str(tmp_path) if name == "." else name))
    assert len(error.value.lines()) == 1


def test_overrides_replace_the_template_and_change_the_digest(model_dir, tmp_path):
    (tmp_path / "t.jinja").write_text("T " + CHAT_TEMPLATE)
    plain = load_tokenizer(Model(name=str(model_dir)))
    tokenizer = load_tokenizer(Model(name=str(model_dir), chat_template=str(tmp_path / "t.jinja")))
    assert tokenizer.chat_template.startswith("T ")
    assert tokenizer_digest(tokenizer) != tokenizer_digest(plain)
    assert tokenizer_digest(load_tokenizer(Model(name=str(model_dir)))) == tokenizer_digest(plain)


def test_a_template_that_strips_white_space_still_scores_the_whole_answer():
    tokenizer = with_template(CHAT_TEMPLATE.replace("message['content']", "message['content'] | trim"))
    encoded = encode_one(chat(" q ", " a ", " b "), tokenizer)
    assert scored_text(encoded, 0, tokenizer) == "a<|im_end|>"


def test_a_thinking_template_shares_what_is_common_and_is_counted():
    tokenizer = with_template(HISTORY)
    encoded = encode_one(chat("q", "a", "b"), tokenizer)
    assert encoded.notes == Note.BOUNDARY
    assert tokenizer.decode(encoded.group.prompt).endswith("<|im_start|>assistant\n")
    assert scored_text(encoded, 0, tokenizer) == "a<|im_end|>"


def test_an_earlier_answer_that_the_template_rewrites_is_context():
    tokenizer = with_template(HISTORY.replace("<think>\n", ""))
    long = [("assistant", "<think>t</think>a"), ("user", "u"), ("assistant", "z")]
    encoded = encode_one(chat([("user", "q")], long, [("assistant", "b")]), tokenizer)
    assert encoded.notes == Note.TURN_UNSCORED | Note.THOUGHTS_LOST
    assert scored_text(encoded, 0, tokenizer) == "z<|im_end|>"


def test_a_template_that_rewrites_the_prompt_itself_costs_the_row():
    tokenizer = with_template("{{ messages | length }}" + CHAT_TEMPLATE)
    assert encode_one(chat("q", "a", "b"), tokenizer).reason is Reason.PROMPT_REWRITTEN


def test_what_a_template_writes_after_the_end_token_is_cut_off():
    tokenizer = with_template(CHAT_TEMPLATE + "{% if not add_generation_prompt %}</s>\n{% endif %}")
    encoded = encode_one(chat("q", "a\n", "b"), tokenizer)
    assert scored_text(encoded, 0, tokenizer) == "a\n<|im_end|>"


def test_a_template_without_end_tokens_gets_the_tokenizers_own():
    tokenizer = with_template(
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
    )
    encoded = encode_one(chat("q", "a", "b"), tokenizer)
    assert encoded.notes == Note.END_ADDED
    assert scored_text(encoded, 0, tokenizer).endswith("<|im_end|>")


def test_system_prompt_of_the_recipe_stays_out_of_rows_that_have_one():
    renderer = Renderer(byte_tokenizer(), system="s")
    assert renderer.prompt(chat("q", "a", "b"))[0]["content"] == "s"
    assert renderer.prompt(chat([("system", "own"), ("user", "q")], "a", "b")) == list(
        turns(("system", "own"), ("user", "q"))
    )
