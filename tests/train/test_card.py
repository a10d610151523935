from dataclasses import replace

import pytest
import yaml
from huggingface_hub import ModelCard

from dpo_cli.train.card import model_card
from tests.fakes import write_model
from tests.train.test_panel import SUMMARY

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


def test_the_code_in_the_card_answers(tmp_path, capsys):
    code = _card().partition("```python\n")[2].partition("```")[0].replace("200", "3")
    exec(code, {"folder": str(write_model(tmp_path)), "question": "Is the sea blue?"})
    assert len(capsys.readouterr().out) > 1
