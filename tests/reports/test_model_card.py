import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from dpo_cli.data.load import load_data
from dpo_cli.data.tokenize.tokenizer import load_tokenizer
from dpo_cli.export.export import export
from dpo_cli.modeling.adapters import continue_adapter
from dpo_cli.modeling.hub import model_start
from dpo_cli.modeling.load import load_model, load_reward_model
from dpo_cli.recipe.load import load
from dpo_cli.reports.model_card import model_card
from dpo_cli.train.run import train
from dpo_cli.types import DataNeeds
from tests.fakes import byte_tokenizer
from tests.reports.test_end_panel import SUMMARY
from tests.train.tiny_recipe import write_recipe

RECIPE = "model:\n  name: HuggingFaceTB/SmolLM2-135M-Instruct\n  revision: " + "ab12" * 10 + "\n"


def _card(summary=SUMMARY, **changes):
    facts = {
        "base_model": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "datasets": ["Anthropic/hh-rlhf", "/data/own.jsonl"],
        "method": "dpo",
        "paper": "Direct Preference Optimization, arXiv:2305.18290",
        "recipe_yaml": RECIPE,
        "command": "HF_TOKEN=hf_AbCdEfGhIjKl dpo train r.yaml",
        "versions": {"torch": "2.13.0", "transformers": "5.23.0"},
        "usage": "",
        "reference_digest": "0123456789abcdef0123456789abcdef",
        "reference_wins": 0.512,
    }
    return model_card(summary, **(facts | changes))


def test_the_front_matter_is_what_the_hub_reads():
    data = ModelCard(_card()).data
    assert data.base_model == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert data.datasets == ["Anthropic/hh-rlhf"]
    assert data.library_name == "transformers"
    assert set(data.tags) >= {"dpo", "preference-optimization"}
    assert data.license is None


@pytest.mark.parametrize("path", ["/models/SmolLM2", "./SmolLM2", "models"])
def test_a_path_is_no_hub_id(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    front = yaml.safe_load(_card(base_model=path, datasets=["pairs.jsonl"]).split("---")[1])
    assert "base_model" not in front and "datasets" not in front


def test_a_folder_that_looks_like_a_hub_id_is_a_folder(tmp_path, monkeypatch):
    (tmp_path / "models" / "SmolLM2").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert "base_model" not in yaml.safe_load(_card(base_model="models/SmolLM2").split("---")[1])


def test_the_card_holds_figures_recipe_versions_and_the_reference():
    card = _card()
    for text in (
        "| reward accuracy (95% interval over prompts) | 0.724 [0.704, 0.744] |",
        '| "longer wins" on the same pairs | 0.530 |',
        "| reference likelihood on the same pairs | 0.512 |",
        "| mean margin loaded in bf16 | +0.0470 |",
        "- torch 2.13.0",
        "0123456789abcdef0123456789abcdef",
        RECIPE.rstrip(),
    ):
        assert text in card


def test_no_credential_reaches_the_card():
    assert "hf_AbCd" not in _card()


def test_without_held_out_pairs_no_figure_is_claimed():
    card = _card(replace(SUMMARY, accuracy=None, n=None))
    assert "Nothing was held out" in card and "| figure |" not in card


def test_an_adapters_card_says_so_to_the_hub():
    data = ModelCard(_card(is_adapter=True)).data
    assert (data.library_name, data.base_model_relation) == ("peft", "adapter")


ADAPTER = ["model.adapter={rank: 4}", "optim.lr=2e-2"]
REWARD = ["method.name=reward"]
QUESTION = {"role": "user", "content": "Rain again?"}
CHATS = [
    [QUESTION, {"role": "assistant", "content": text}] for text in ("Yes, all day, my friend.", "So what.")
]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """A recipe on a base whose config names no pad token, as many published ones."""
    path = write_recipe(tmp_path_factory.mktemp("card"))
    config = path.parent / "tiny" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "pad_token_id": None}))
    return path


def result_of(recipe, *settings):
    """Give the model folder of a short run."""
    places = [f"train.output_dir={recipe.parent}/runs", "train.max_steps=3"]
    status = train(load(str(recipe), [*places, *settings]), "dpo train tiny.yaml")
    return recipe.parent / "runs" / status.run_dir / "model"


def run_card(folder, **names):
    """Execute the code in a folder's card; give the names that it defines."""
    text = (folder / "README.md").read_text()
    code = (
        text.partition("```python\n")[2]
        .partition("```")[0]
        .replace("max_new_tokens=200", "max_new_tokens=8, do_sample=False")
    )
    assert code, "the card has code"
    found = {"folder": str(folder), **names}
    exec(code, found)
    return found


def own_model(folder):
    """Load a saved folder by this package's own loader."""
    start = model_start(str(folder), None, weights=True)
    is_reward = "text-classification" in (folder / "README.md").read_text()
    model = (load_reward_model if is_reward else load_model)(start.base, 300)
    if start.adapter is not None:
        continue_adapter(model, start.adapter)
    model.config.pad_token_id = None  # of one row alone the last token is read, whatever it is
    return model.eval()


@torch.no_grad()
def check_scores(folder, rows, **names):
    """Compare the scores of the card's code with this package's own of each row alone."""
    model = own_model(folder)
    expected = [model(input_ids=torch.tensor([ids])).logits.item() for ids in rows]
    scores = run_card(folder, **names)["scores"]

    assert [float(score) for score in scores] == pytest.approx(expected, abs=1e-5)
    assert expected[0] != pytest.approx(expected[1], abs=1e-3)


def answer_of(model, tokenizer):
    """Give the likeliest answer to the question, of at most eight tokens."""
    row = tokenizer.apply_chat_template(
        [QUESTION], add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    ids = model.generate(**row, max_new_tokens=8, do_sample=False)[0, row["input_ids"].shape[1] :]
    return tokenizer.decode(ids, skip_special_tokens=True)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")  # peft asks for it
@pytest.mark.parametrize("settings", [[], ADAPTER], ids=["whole", "adapter"])
def test_the_code_in_a_reward_models_card_gives_its_scores(settings, recipe, tmp_path):
    folder = result_of(recipe, *REWARD, *settings)
    export(str(folder.parent), "merged", tmp_path / "merged", "fp32")
    rows = byte_tokenizer().apply_chat_template(CHATS)["input_ids"]

    assert ("import AutoPeftModel" in (folder / "README.md").read_text()) == bool(settings)
    check_scores(folder, rows, chats=CHATS)
    check_scores(tmp_path / "merged", rows, chats=CHATS)
    assert ModelCard.load(tmp_path / "merged" / "README.md").data.library_name == "transformers"


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")
@pytest.mark.parametrize("settings", [[], ADAPTER], ids=["whole", "adapter"])
def test_the_code_in_a_policys_card_answers_as_the_policy(settings, recipe, tmp_path, capsys):
    folder = result_of(recipe, *settings)
    export(str(folder.parent), "merged", tmp_path / "merged", "fp32")
    before = answer_of(load_model(recipe.parent / "tiny", 300), byte_tokenizer())

    for each in (folder, tmp_path / "merged"):
        expected = answer_of(own_model(each), byte_tokenizer())
        capsys.readouterr()
        run_card(each, question=QUESTION["content"])
        assert capsys.readouterr().out == f"{expected}\n"
        assert expected != before, "the base alone would answer so"


def take_text_tokenizer(folder, specials):
    """Give a model's folder a tokenizer without a chat template and with no other control tokens: the last of them ends texts, and pads."""
    (folder / "chat_template.jinja").unlink()
    words = [*specials, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    backend = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(words)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    end = {"eos_token": specials[-1], "pad_token": specials[-1]}
    PreTrainedTokenizerFast(
        tokenizer_object=backend, additional_special_tokens=specials, **end
    ).save_pretrained(folder)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")
@pytest.mark.parametrize("settings", [[], ADAPTER], ids=["whole", "adapter"])
@pytest.mark.parametrize(
    ("specials", "loop"), [(["<mask>", "<end>"], "padding=True"), (["<end>"], "one by one")]
)
def test_texts_are_scored_where_training_did_with_and_without_a_token_to_pad(
    specials, loop, settings, tmp_path
):
    recipe = write_recipe(tmp_path)
    take_text_tokenizer(tmp_path / "tiny", specials)
    folder = result_of(recipe, *REWARD, *settings)
    loaded = load(str(recipe), []).recipe
    tokenizer = load_tokenizer(replace(loaded.model, name=str(folder)))
    row = load_data(loaded.data, tokenizer, DataNeeds(whole_rows=True)).train_rows[0]
    ids = [np.concatenate([row.group.prompt, own]).tolist() for own in row.group.completions]

    assert loop in (folder / "README.md").read_text()
    check_scores(folder, ids, texts=[row.example.prompt + answer for answer in row.example.completions])


def test_the_code_in_a_text_models_card_goes_on_with_a_text(tmp_path, capsys):
    recipe = write_recipe(tmp_path)
    take_text_tokenizer(tmp_path / "tiny", ["<mask>", "<end>"])
    folder = result_of(recipe)
    capsys.readouterr()
    run_card(folder, text="Rain again?")

    assert capsys.readouterr().out.startswith("Rain again?")
