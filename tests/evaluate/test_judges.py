"""Reward models and the lexicon as judges, and pairs that `dpo train` takes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification
from typer.testing import CliRunner

from dpo_cli.cli.app import app
from dpo_cli.data.load import load_data
from dpo_cli.errors import DataError, ModelError
from dpo_cli.evaluate.judges import open_judge
from dpo_cli.evaluate.judges._base import Question
from dpo_cli.evaluate.judges.reward import open_reward
from dpo_cli.modeling.load import load_reward_model
from dpo_cli.modeling.reward_head import take_padding
from dpo_cli.recipe.schema import Source, Split
from tests.data.build import config
from tests.evaluate.sampled import sampled
from tests.fakes import SPECIALS, byte_tokenizer, write_jsonl, write_model

ASKED = [("Tea?", "yes"), ("Tea?", "no, thank you very much"), ("Rain?", "it may")]


@pytest.fixture(scope="module")
def chat_judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A causal LM's backbone with a head, as `method: reward` saves it."""
    folder = tmp_path_factory.mktemp("judge")
    model, tokenizer = load_reward_model(write_model(folder / "lm"), 300, seed=1), byte_tokenizer()
    take_padding(model, tokenizer, range(len(SPECIALS)), {SPECIALS.index("<|im_end|>")})
    model.save_pretrained(folder / "reward")
    tokenizer.save_pretrained(folder / "reward")
    return folder / "reward"


def test_a_reward_model_of_ours_scores_each_chat_as_it_would_alone(
    chat_judge: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = open_reward(str(chat_judge), None)
    model, tokenizer = judge._model, byte_tokenizer()
    alone = []
    for prompt, answer in ASKED:
        turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
        ids = tokenizer.apply_chat_template(turns, return_dict=False)
        with torch.no_grad():
            alone.append(model(torch.tensor([ids])).logits.item())

    assert judge.scores(ASKED) == pytest.approx(alone, abs=1e-5)
    model.config.pad_token_id = None
    assert judge.scores(ASKED) == pytest.approx(alone, abs=1e-6), "rows go one by one"
    win = judge.judge([Question("Tea?", "yes", "no, thank you very much")], lambda _n: None)[0].win
    assert win == float(alone[0] > alone[1])


def test_a_score_that_is_not_finite_is_no_verdict(chat_judge: Path) -> None:
    judge = open_reward(str(chat_judge), None)
    torch.nn.init.constant_(judge._model.score.weight, float("nan"))
    (verdict,) = judge.judge([Question("Tea?", "yes", "no")], lambda _n: None)

    assert (verdict.win, verdict.scores, verdict.reason) == (None, None, "the judge's score is not finite")


def test_a_model_of_pairs_reads_question_and_answer_as_two_texts(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
    bert = BertConfig(
        vocab_size=300, num_hidden_layers=1, num_labels=1, max_position_embeddings=40, **settings
    )
    model, tokenizer = BertForSequenceClassification(bert).eval(), byte_tokenizer(chat=False)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    judge = open_reward(str(tmp_path), None)
    *short, long = judge.scores([*ASKED, ("Tea?", "no " * 30)])
    row = tokenizer("Tea?", "yes", return_tensors="pt")
    with torch.no_grad():
        expected = model(**row).logits.item()

    assert judge.facts()["input"] == "pair"
    assert short[0] == pytest.approx(expected, abs=1e-5)
    assert long == "longer than the judge's 40 tokens"
    assert judge.scores([("Tea?", "no</s>")]) == ["the text spells a control token of the judge"]
    with pytest.raises(ModelError, match="has no chat template"):
        open_reward(str(tmp_path), "chat")


def test_models_that_cannot_judge_are_refused(chat_judge: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"scores would be random: score\.weight"):
        open_reward(str(write_model(tmp_path / "lm")), None)
    stated = json.loads((chat_judge / "config.json").read_text())
    for name, change, told in (
        ("code", {"auto_map": {"AutoModel": "x.Y"}}, r"brings its own code \(auto_map\)"),
        ("many", {"id2label": {"0": "a", "1": "b"}}, "gives 2 scores an answer, not one"),
    ):
        folder = tmp_path / name
        byte_tokenizer().save_pretrained(folder)
        (folder / "config.json").write_text(json.dumps({**stated, **change}))
        (folder / "model.safetensors").write_bytes((chat_judge / "model.safetensors").read_bytes())
        with pytest.raises(ModelError, match=told):
            open_reward(str(folder), None)
    (tmp_path / "code" / "model.safetensors").rename(tmp_path / "code" / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"pickled weights are not read. Fix: dpo convert"):
        open_reward(str(tmp_path / "code"), None)


def test_the_lexicon_hears_the_mood() -> None:
    pytest.importorskip("vaderSentiment")
    judge = open_judge("lexicon")
    good, bad = "A wonderful, lovely film.", "A terrible, boring mess."
    (verdict,) = judge.judge([Question("Review:", good, bad)], lambda _n: None)

    assert verdict.win == 1.0 and verdict.scores is not None
    assert verdict.scores[0] > 0.5 > -0.5 > verdict.scores[1]


def test_an_absent_lexicon_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(ModelError, match=r"pip install 'dpo-cli\[judge\]'"):
        open_judge("lexicon")


def test_pairs_are_rows_that_training_reads_at_once(chat_judge: Path, tmp_path: Path) -> None:
    rows = [
        sampled(f"q{i}", text, k=k) for i in range(4) for k, text in enumerate(["a", f"bb {i}", "a", "ccc"])
    ]
    samples = write_jsonl(tmp_path / "s.jsonl", rows)
    command = ["pairs", str(samples), "--out", str(tmp_path / "pairs.jsonl")]
    done = CliRunner().invoke(app, [*command, "--judge", str(chat_judge), "--take", "all"])
    assert done.exit_code == 0, done.output
    assert (
        "12 pairs from 4 prompts by reward" in done.stdout and "left out  4 repeated answers" in done.stdout
    )
    data = config(
        train=[Source(path=str(tmp_path / "pairs.jsonl"))],
        cache=str(tmp_path / "cache"),
        split=Split(eval=0.0),
    )
    loaded = load_data(data, byte_tokenizer())

    assert loaded.report.sources[0].format == "pairs" and len(loaded.train) == 12
    stated = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    margins = [row["score_chosen"] - row["score_rejected"] for row in stated]
    assert min(margins) > 0 and [group.margin for group in loaded.train] == pytest.approx(margins)
    raw = write_jsonl(tmp_path / "raw.jsonl", [{**row, "prompt": "Once"} for row in rows[:4]])
    assert CliRunner().invoke(app, ["pairs", str(raw), *command[2:], "--judge", "longer"]).exit_code == 0
    data = replace(data, train=[Source(path=str(tmp_path / "pairs.jsonl"))])
    assert load_data(data, byte_tokenizer(chat=False)).report.sources[0].format == "pairs"
    alone = write_jsonl(tmp_path / "one.jsonl", rows[:1])
    error = CliRunner().invoke(app, ["pairs", str(alone), "--judge", "longer"]).exception
    assert isinstance(error, DataError) and "no prompt has two answers that differ" in str(error)
