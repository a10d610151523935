"""A reward model from a recipe to a folder that transformers loads and scores with."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from dpo_cli.data.load import load_data
from dpo_cli.data.tokenize.encode import Encoder
from dpo_cli.errors import DataError, ModelError
from dpo_cli.methods._base import mean_loss
from dpo_cli.methods.reward import METHOD, RewardConfig, reward_loss
from dpo_cli.modeling.load import load_model, load_reward_model
from dpo_cli.modeling.reward_head import take_padding
from dpo_cli.modeling.scorer import Scorer, score
from dpo_cli.recipe.load import load
from dpo_cli.recipe.schema import Source, Split
from dpo_cli.runs.status import Status
from dpo_cli.train.run import train
from dpo_cli.types import DataNeeds, LogProbs, TokenGroup
from tests.data.build import chat, config, full_ids, load_rows
from tests.fakes import SPECIALS, byte_tokenizer, pair_rows, write_jsonl, write_model
from tests.train.tiny_recipe import write_recipe

QUESTION = {"role": "user", "content": "Tea?"}
ANSWERS = ("Yes, with milk.", "No.")
CHATS = [[QUESTION, {"role": "assistant", "content": answer}] for answer in ANSWERS]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Status]:
    """A finished run and its status."""
    folder = tmp_path_factory.mktemp("reward")
    settings = [
        "method.name=reward",
        f"train.output_dir={folder}/runs",
        "train.max_steps=12",
        "optim.lr=3e-3",
    ]
    status = train(load(str(write_recipe(folder)), settings), "dpo train tiny.yaml")
    (run,) = (folder / "runs").iterdir()
    return run, status


def test_loss_is_bradley_terry_with_margins_and_centering() -> None:
    scores = LogProbs(
        torch.tensor([1.5, 0.5, -1.0, 2.0], dtype=torch.float64),
        torch.ones(4, dtype=torch.int64),
        margins=torch.tensor([5.0, 0.0], dtype=torch.float64),
    )
    out = reward_loss(scores, None, RewardConfig(use_margin=True, margin_scale=0.05, centering=0.01))
    bradley_terry = (math.log1p(math.exp(-(1.0 - 0.25))) + math.log1p(math.exp(3.0))) / 2

    assert mean_loss(out, scores).item() == pytest.approx(
        bradley_terry + 0.01 * (2.0**2 + 1.0**2) / 2, rel=1e-12
    )
    assert out.metrics["rewards/margins"].tolist() == [1.0, -3.0]


def test_a_margin_that_nobody_asked_for_is_not_in_the_loss() -> None:
    generator = torch.Generator().manual_seed(3)
    plain = LogProbs(
        torch.randn(8, generator=generator, dtype=torch.float64), torch.ones(8, dtype=torch.int64)
    )
    votes = dataclasses.replace(plain, margins=torch.tensor([41.0, 7.0, -2.0, 0.0], dtype=torch.float64))
    gaps = [plain.total[k].item() - plain.total[k + 1].item() for k in (0, 2, 4, 6)]

    expected = pytest.approx(sum(math.log1p(math.exp(-gap)) for gap in gaps) / 4, rel=1e-12)
    assert mean_loss(reward_loss(plain, None, RewardConfig()), plain).item() == expected
    assert mean_loss(reward_loss(votes, None, RewardConfig()), votes).item() == expected
    # A model that was trained with margins is also measured on rows that state none.
    assert mean_loss(reward_loss(plain, None, RewardConfig(use_margin=True)), plain).item() == expected


@pytest.mark.parametrize("path", ["packed", "padded"])
def test_scores_are_those_of_transformers_for_each_row_alone(path: str, tmp_path: Path) -> None:
    model = load_reward_model(write_model(tmp_path), 300, seed=1)
    rng = np.random.default_rng(0)
    ids = [rng.integers(5, 260, n).astype(np.int32) for n in (6, 4, 9)]
    masks = tuple(np.ones(len(own), dtype=bool) for own in ids[1:])
    group = TokenGroup(ids[0], tuple(ids[1:]), masks)
    alone = [
        model(input_ids=torch.from_numpy(np.concatenate([ids[0], own])).long()[None]).logits.item()
        for own in ids[1:]
    ]

    scorer = Scorer(model, path)  # type: ignore[arg-type]
    found = score(scorer, scorer.layout([group, group])).total

    assert found.tolist() == pytest.approx([*alone, *alone], abs=1e-5)


def test_it_learns_and_is_evaluated_by_its_scores(trained: tuple[Path, Status]) -> None:
    run, status = trained
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [row["train/loss"] for row in rows if "train/loss" in row]

    assert losses[-1] < 0.8 * losses[0]
    assert status.eval is not None and status.eval["accuracy"] > 0.7
    assert not any("logps" in key for row in rows for key in row), "a score is no log-prob"
    assert status.margins["saved"] == pytest.approx(status.margins["trained"], abs=1e-5)


def test_the_saved_folder_scores_chats_in_transformers_as_we_do(trained: tuple[Path, Status]) -> None:
    folder = trained[0] / "model"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    encoded = Encoder(tokenizer, config(), whole_rows=True).encode([chat("Tea?", *ANSWERS)])[0]
    assert encoded.group is not None

    rows = tokenizer.apply_chat_template(CHATS, padding=True, return_dict=True, return_tensors="pt")
    scorer = Scorer(load_reward_model(folder, 300))
    with torch.no_grad():
        theirs = model(**rows).logits[:, 0]
        ours = score(scorer, scorer.layout([encoded.group])).total

    assert ours.tolist() == pytest.approx(theirs.tolist(), abs=1e-5)
    card = (folder / "README.md").read_text()
    assert "pipeline_tag: text-classification" in card and "AutoModelForSequenceClassification" in card


def test_rows_end_where_the_chat_template_ends() -> None:
    tokenizer = byte_tokenizer()
    whole = Encoder(tokenizer, config(), whole_rows=True).encode([chat("Tea?", *ANSWERS)])[0]
    usual = Encoder(tokenizer, config()).encode([chat("Tea?", *ANSWERS)])[0]

    assert [full_ids(whole, k) for k in range(2)] == [
        tokenizer.apply_chat_template(c)["input_ids"] for c in CHATS
    ]
    assert [len(full_ids(whole, k)) - len(full_ids(usual, k)) for k in range(2)] == [1, 1], "a line break"
    assert whole.group is not None and usual.group is not None and whole.group.scored == usual.group.scored


def test_tokenised_rows_of_both_kinds_are_kept_apart(tmp_path: Path) -> None:
    rows = [{"prompt": "Tea?", "chosen": ANSWERS[0], "rejected": ANSWERS[1]}]
    usual = load_rows(tmp_path, rows)
    data = config(
        train=[Source(path=str(tmp_path / "train.jsonl"))],
        cache=str(tmp_path / "cache"),
        split=Split(eval=0.0),
    )
    whole = load_data(data, byte_tokenizer(), needs=DataNeeds(whole_rows=True))

    assert len(whole.train[0].completions[0]) == len(usual.train[0].completions[0]) + 1


def test_a_pad_token_that_ends_rows_is_replaced(tmp_path: Path) -> None:
    model, tokenizer = load_reward_model(write_model(tmp_path), 300), byte_tokenizer()
    end = SPECIALS.index("<|im_end|>")
    tokenizer.pad_token = "<|im_end|>"

    take_padding(model, tokenizer, range(len(SPECIALS)), {end})
    assert model.config.pad_token_id == tokenizer.pad_token_id == SPECIALS.index("<pad>")
    take_padding(model, tokenizer, {end}, {end, tokenizer.pad_token_id})
    assert model.config.pad_token_id is None, "better refused in batches than scored at the wrong token"


def test_the_same_seed_draws_the_same_head_and_a_folders_own_head_is_kept(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "lm")
    one, same, other = (
        load_reward_model(folder, 300, seed).get_submodule("score").weight for seed in (1, 1, 2)
    )
    assert torch.equal(one, same) and not torch.equal(one, other)

    load_reward_model(folder, 300, 1).save_pretrained(tmp_path / "reward")
    assert torch.equal(load_reward_model(tmp_path / "reward", 300, 2).get_submodule("score").weight, one)
    with pytest.raises(ModelError, match=r"no place for: score\.weight"):
        load_model(tmp_path / "reward", 300)


def test_margins_come_from_a_column_and_must_be_numbers(tmp_path: Path) -> None:
    rows = [
        {"prompt": "a", "chosen": "b", "rejected": "c", "gap": 1.5},
        {"prompt": "d", "chosen": "e", "rejected": "f", "gap": None},
    ]
    data = load_rows(tmp_path, rows, source={"columns": {"margin": "gap"}})
    assert [group.margin for group in data.train] == [1.5, None]
    assert data.report.sources[0].unused_columns == []

    with pytest.raises(DataError, match=r"train.jsonl:1.*\"gap\" is 'much', not a number"):
        load_rows(tmp_path, [{**rows[0], "gap": "much"}], source={"columns": {"margin": "gap"}})


VOTES = {
    "prompt": "post",
    "answer_a": "first",
    "answer_b": "second",
    "rating_a": "up_first",
    "rating_b": "up_second",
}
"""A forum's two answers and their up-votes, as our columns."""


def forum(folder: Path) -> Path:
    """Write eight posts, the better answer on either side, 38 to 45 up-votes apart, and a recipe of one step; give the recipe."""
    better, worse = "Soak them overnight.", "No idea."
    sides = [(better, worse, 40 + i, 2) if i % 2 else (worse, better, 2, 40 + i) for i in range(8)]
    names = ("first", "second", "up_first", "up_second")
    rows = [
        {"post": f"Beans, take {i}?", **dict(zip(names, side, strict=True))} for i, side in enumerate(sides)
    ]
    write_model(folder / "tiny")
    write_jsonl(folder / "forum.jsonl", rows)
    columns = ", ".join(f"{ours}: {theirs}" for ours, theirs in VOTES.items())
    source = f"{{path: forum.jsonl, format: rated_pair, columns: {{{columns}}}}}"
    (folder / "forum.yaml").write_text(
        f"model: {{name: ./tiny}}\nmethod: {{name: reward}}\ndata: {{train: [{source}], split: {{eval: 0.0}}}}\n"
        f"train: {{batch_size: 8, max_steps: 1, precision: fp32, eval_every: 0, save_every: 0, samples: 0, output_dir: {folder}/runs}}\n"
        "log: {every: 1}\n"
    )
    return folder / "forum.yaml"


@pytest.mark.parametrize(
    ("settings", "scale", "line"),
    [
        ([], 0.0, "differences of scores, of any mean"),
        (
            ["method.use_margin=true"],
            1.0,
            "differences of scores less a margin (1 times the data's), of any mean",
        ),
        (
            ["method.use_margin=true", "method.margin_scale=0.02"],
            0.02,
            "less a margin (0.02 times the data's)",
        ),
    ],
)
def test_up_votes_are_a_margin_only_where_the_recipe_says_so(
    settings: list[str], scale: float, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(load(str(forum(tmp_path)), settings), "dpo train forum.yaml")
    (run,) = (tmp_path / "runs").iterdir()
    first = json.loads((run / "metrics.jsonl").read_text().splitlines()[0])
    (method,) = (told for told in capsys.readouterr().err.splitlines() if told.startswith("method: "))

    assert line in method
    gaps = [scale * (38 + i) - first["train/rewards/margins"] for i in range(8)]
    # Eight nearly equal pairs under a head of random weights: each pair's gap is nearly their mean.
    expected = sum(math.log1p(math.exp(gap)) for gap in gaps) / 8
    assert first["train/loss"] == pytest.approx(expected, abs=0.02)
    assert scale or first["train/loss"] == pytest.approx(math.log(2), abs=0.02)


def test_the_size_of_the_margins_is_told_and_what_would_make_them_small(tmp_path: Path) -> None:
    data = load_data(load(str(forum(tmp_path)), []).recipe.data, byte_tokenizer())

    (unused,) = METHOD.advice(RewardConfig(), data.train)
    assert unused.startswith(
        "8 of 8 training pairs state a margin or two scores: not used; method.use_margin=true"
    )
    (large,) = METHOD.advice(RewardConfig(use_margin=True), data.train)
    assert "38 / 41.5 / 45" in large and large.endswith("method.margin_scale=0.022 makes the largest 1")
    (small,) = METHOD.advice(RewardConfig(use_margin=True, margin_scale=0.02), data.train)
    assert small == "margins (smallest / median / largest): 0.76 / 0.83 / 0.9"
    assert METHOD.advice(RewardConfig(), load_rows(tmp_path, pair_rows(3)).train) == []


def test_rows_without_the_margin_that_is_asked_for_are_one_error(tmp_path: Path) -> None:
    rows = [{"prompt": f"q{i}", "chosen": "yes", "rejected": "no", "score_chosen": 9.0} for i in range(6)]
    rows[1]["score_rejected"] = 2.0

    with pytest.raises(DataError) as raised:
        load_rows(tmp_path, rows, needs=METHOD.needs(RewardConfig(use_margin=True)))
    (problem,) = raised.value.problems
    assert problem.where.endswith("train.jsonl:1")
    assert problem.what.startswith(
        "no margin and no scores, which method.use_margin puts into the loss; 5 rows"
    )
    assert problem.what.endswith("(also :3, :4, ...)")
    assert "score_rejected" in problem.fix and "method.use_margin=false" in problem.fix
    assert len(load_rows(tmp_path, rows, needs=METHOD.needs(RewardConfig())).train) == 6
