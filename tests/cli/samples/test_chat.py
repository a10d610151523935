"""`dpo chat`: everyone is asked the same and goes on with its own conversation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dpo_cli.cli.app import app
from dpo_cli.errors import ModelError, RecipeError
from dpo_cli.evaluate.samples.chat import converse, speakers
from dpo_cli.modeling.load import load_reward_model
from dpo_cli.recipe.load import load
from dpo_cli.train.run import train
from tests.fakes import byte_tokenizer, write_model
from tests.train.tiny_recipe import write_recipe


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two steps at a rate that changes answers."""
    folder = tmp_path_factory.mktemp("chat")
    places = [f"train.output_dir={folder}/runs", f"reference.store={folder}/store"]
    settings = ["train.max_steps=2", "optim.lr=0.05", "train.save_every=0"]
    return Path(train(load(str(write_recipe(folder)), [*places, *settings]), "dpo train").run_dir)


def test_a_run_and_its_reference_answer_the_same_questions(run: Path) -> None:
    everyone = speakers(str(run), "reference", "Be brief.")
    told: list[str] = []
    for question in ("Tea?", "And rain?"):
        converse(everyone, question, 0.0, 6, 0, told.append)

    assert [speaker.name for speaker in everyone] == [str(run), "reference"]
    for speaker in everyone:
        assert [turn["role"] for turn in speaker.turns] == [
            "system",
            "user",
            "assistant",
            "user",
            "assistant",
        ]
        assert speaker.turns[2]["content"] in "".join(told)
    assert everyone[0].turns[2] != everyone[1].turns[2], "two models"
    assert everyone[0].turns[1] == everyone[1].turns[1]


def test_what_the_runs_prompts_were_rendered_with_is_what_a_chat_begins_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = write_model(tmp_path / "model")
    (tmp_path / "recipe.yaml").write_text(
        f"model: {{name: {model}}}\n"
        "data: {train: [{path: r.jsonl}], system: Be kind., chat_template_kwargs: {enable_thinking: false}}\n"
    )
    (speaker,) = speakers(str(tmp_path), None, None)
    assert speaker.turns == [{"role": "system", "content": "Be kind."}]
    assert speakers(str(tmp_path), None, "Be brief.")[0].turns == [{"role": "system", "content": "Be brief."}]

    speaker.tokenizer.chat_template = "{{ 'quick' if enable_thinking is false else 'slow' }}"
    given: list[str] = []
    monkeypatch.setattr(
        speaker.model, "generate", lambda **kw: given.append(kw["input_ids"]) or kw["input_ids"]
    )
    converse([speaker], "Tea?", 0.0, 4, 0, str)
    assert speaker.tokenizer.decode(given[0][0]) == "quick"


def test_a_run_that_merged_system_prompts_is_asked_so_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = write_model(tmp_path / "model")
    (tmp_path / "recipe.yaml").write_text(
        f"model: {{name: {model}}}\ndata: {{train: [{{path: r.jsonl}}], system: Be kind., merge_system: true}}\n"
    )
    (speaker,) = speakers(str(tmp_path), None, None)
    given: list[str] = []

    def answer(**inputs: Any) -> Any:
        given.append(str(speaker.tokenizer.decode(inputs["input_ids"][0])))
        return inputs["input_ids"]

    monkeypatch.setattr(speaker.model, "generate", answer)
    for question in ("Tea?", "And rain?"):
        converse([speaker], question, 0.0, 4, 0, str)
    assert given[0] == "<|im_start|>user\nBe kind.\n\nTea?<|im_end|>\n<|im_start|>assistant\n"
    assert given[1].count("Be kind.") == 1
    assert "<|im_start|>user\nAnd rain?" in given[1]


def test_a_pipe_is_answered_line_by_line_and_the_same_seed_repeats_it(run: Path) -> None:
    command = ["chat", str(run), "--temperature", "1", "--max-tokens", "8", "--seed"]
    one, same, other = (CliRunner().invoke(app, [*command, seed], input="Tea?\n") for seed in ("1", "1", "2"))

    assert one.exit_code == 0, one.output
    assert one.stdout == same.stdout != other.stdout


def test_what_cannot_answer_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="is no run that a reference belongs to"):
        speakers(str(run / "model"), "reference", None)
    with pytest.raises(ModelError, match="has no chat template"):
        speakers(str(write_model(tmp_path / "bare", chat=False)), None, None)
    reward = load_reward_model(write_model(tmp_path / "lm"), 300)
    reward.save_pretrained(tmp_path / "reward")
    byte_tokenizer().save_pretrained(tmp_path / "reward")
    with pytest.raises(ModelError, match=r"score\.weight"):
        speakers(str(tmp_path / "reward"), None, None)
