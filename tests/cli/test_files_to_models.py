"""From a file to a trained model by `dpo init`, `dpo check`, `dpo train`, no recipe edited, on a real model."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import write_jsonl

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("DPO_SHARED_DATA", ROOT / ".." / "shared" / "data"))
SMOLLM = ROOT / "models" / "SmolLM2-135M-Instruct"
SHORT = (
    "train.max_steps=2",
    "train.batch_size=4",
    "train.samples=1",
    "data.max_length=256",
    "data.long_prompt=cut_start",
)
ROWS = 40

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not SHARED.is_dir(), reason=f"no real data in {SHARED}"),
    pytest.mark.skipif(not SMOLLM.is_dir(), reason="no real model: run `make setup demo`"),
]


def polite() -> list[dict[str, Any]]:
    with (SHARED / "polite_style_900.jsonl").open() as file:
        return [json.loads(next(file)) for _ in range(ROWS)]


def write_table(path: Path, rows: Iterable[dict[str, Any]], separator: str = ",") -> Path:
    rows = list(rows)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], delimiter=separator)
        writer.writeheader()
        writer.writerows(rows)
    return path


def votes(folder: Path) -> Path:
    sides = [("chosen", "rejected"), ("rejected", "chosen")]
    rows = [
        {
            "question": row["prompt"],
            "answer_a": row[sides[i % 2][0]],
            "answer_b": row[sides[i % 2][1]],
            "winner": i % 2 + 1,
        }
        for i, row in enumerate(polite())
    ]
    return write_table(folder / "votes.csv", rows)


def thumbs(folder: Path) -> Path:
    words = {"chosen": "thumbs up", "rejected": "thumbs down"}
    rows = [
        {"prompt": row["prompt"], "response": row[side], "feedback": words[side]}
        for row in polite()
        for side in words
    ]
    return write_table(folder / "thumbs.tsv", rows, "\t")


def ratings(folder: Path) -> Path:
    stars = {"chosen": 5, "rejected": 2}
    rows = [
        {"prompt": row["prompt"], "answer": row[side], "rating": stars[side]}
        for row in polite()
        for side in stars
    ]
    return write_jsonl(folder / "ratings.jsonl", rows)


def ranking(folder: Path) -> Path:
    rows = [
        {"prompt": row["prompt"], "completions": [row["chosen"], row["rejected"], "Whatever."]}
        for row in polite()
    ]
    return write_jsonl(folder / "ranking.jsonl", rows)


def tool_turns(folder: Path) -> Path:
    def talk(row: dict[str, Any]) -> list[dict[str, Any]]:
        call = {"type": "function", "function": {"name": "rewrite", "arguments": {"text": row["rejected"]}}}
        return [
            {"role": "user", "content": row["prompt"]},
            {"role": "assistant", "content": "Let me see.", "tool_calls": [call]},
            {"role": "tool", "content": row["rejected"]},
            {"role": "assistant", "content": row["chosen"]},
        ]

    return write_jsonl(folder / "talks.jsonl", [{"messages": talk(row)} for row in polite()])


def shared(name: str) -> Callable[[Path], Path]:
    return lambda folder: SHARED / name


FILES = [
    (votes, "winner", "dpo"),
    (thumbs, "labelled", "kto"),
    (ratings, "labelled", "kto"),
    (ranking, "ranking", "dpo"),
    (tool_turns, "conversation", "sft"),
    (shared("hh_helpful_base_dev.jsonl"), "pairs", "dpo"),
    (shared("hh_helpful_base_dev_messages.jsonl"), "pairs", "dpo"),
    (shared("polite_style_900.jsonl"), "pairs", "dpo"),
    (shared("ultrafeedback_400.jsonl"), "pairs", "dpo"),
    (shared("kto_en_300.jsonl"), "labelled", "kto"),
    (shared("orca_dpo_openai_format_284.jsonl"), "pairs", "dpo"),
    (shared("sharegpt_dpo_en_300.json"), "pairs", "dpo"),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "layout", "method"),
    FILES,
    ids=[
        "votes",
        "thumbs",
        "ratings",
        "ranking",
        "tools",
        "hh",
        "messages",
        "polite",
        "ultrafeedback",
        "kto",
        "openai",
        "sharegpt",
    ],
)
def test_file_to_model(tmp_path: Path, make: Callable[[Path], Path], layout: str, method: str) -> None:
    path = make(tmp_path)
    told = dpo(tmp_path, "init", str(path), "--model", str(SMOLLM), "--out", "drawn.yaml")
    assert f"read as {layout}" in told and "next: dpo check drawn.yaml" in told
    limited = (f"data.train[0].limit={2 * ROWS}", f"data.cache={tmp_path}/tokens", "data.split.eval=0.2")
    told = dpo(tmp_path, "check", "drawn.yaml", *SHORT, *limited)
    assert f"format {layout}" in told and "OK: recipe, data, tokenizer and template fit together" in told
    store = (f"reference.store={tmp_path}/store",) if method != "sft" else ()
    dpo(tmp_path, "train", "drawn.yaml", *SHORT, *limited, *store)
    (run,) = (tmp_path / "runs").iterdir()
    assert json.loads((run / "status.json").read_text())["step"] == 2
    assert (run / "model" / "model.safetensors").is_file()
    assert f"name: {method}" in (run / "recipe.yaml").read_text()


def dpo(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "dpo_cli", *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
