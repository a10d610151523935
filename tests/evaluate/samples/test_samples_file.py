"""Figures of samples, by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dpo_cli.errors import DataError
from dpo_cli.evaluate.samples.samples_file import figures, read_samples, repetition, samples_of, write_rows


def row(prompt: str, temperature: float, policy: dict[str, Any] | None, k: int = 0) -> dict[str, Any]:
    fields = {"seed": 0, "max_new_tokens": 8, "engine": "transformers", "reference": None, "k": k}
    return {"prompt": prompt, "prompt_key": prompt, "temperature": temperature, "policy": policy, **fields}


def answer(tokens: int, logp: float, ref_logp: float | None, ended: bool = True) -> dict[str, Any]:
    about = {"text": "", "repetition": 0.25, "model": "m", "digest": "d"}
    return {"tokens": tokens, "logp": logp, "ref_logp": ref_logp, "ended": ended, **about}


def test_repetition_is_the_share_of_four_grams_that_stood_before() -> None:
    assert repetition([1, 2, 3]) == 0.0
    assert repetition([1, 2, 3, 4, 5]) == 0.0
    # 1212, 2121, 1212, 2121: two of four stood before
    assert repetition([1, 2, 1, 2, 1, 2, 1]) == 0.5
    assert repetition([9] * 8) == pytest.approx(4 / 5)


def test_the_log_ratio_is_a_mean_over_answers_and_a_ratio_of_sums_over_tokens() -> None:
    rows = [
        row("a", 1.0, answer(2, -1.0, -3.0)),
        row("a", 1.0, answer(4, -4.0, -5.0, ended=False), k=1),
        row("b", 1.0, answer(3, -2.0, -2.5)),
        row("b", 0.0, answer(5, -1.0, -1.0)),
        row("c", 1.0, None),
    ]
    greedy, drawn = figures(rows)

    assert (greedy["temperature"], greedy["n"], greedy["is_kl"]) == (0.0, 1, False)
    assert (drawn["n"], drawn["prompts"], drawn["is_kl"]) == (3, 2, True)
    assert drawn["tokens"] == 3.0 and drawn["ended"] == pytest.approx(2 / 3) and drawn["repetition"] == 0.25
    ratio = drawn["log_ratio"]
    assert ratio["mean"] == pytest.approx((2.0 + 1.0 + 0.5) / 3)
    assert ratio["per_token"] == pytest.approx(3.5 / 9)
    # Over prompts: the mean is that of "a" alone, 1.5, of "b" alone, 0.5, or between.
    assert ratio["ci"] == pytest.approx((0.5, 1.5))
    assert ratio["per_token_ci"] == pytest.approx((0.5 / 3, 3 / 6))
    assert figures([row("a", 1.0, answer(2, -1.0, None))])[0]["log_ratio"] is None


def test_a_file_is_read_back_and_lines_that_are_no_samples_are_told(tmp_path: Path) -> None:
    rows = [row("a", 1.0, answer(2, -1.0, None))]
    write_rows(rows, tmp_path / "deep" / "s.jsonl")
    assert samples_of(tmp_path / "deep" / "s.jsonl") == rows
    assert read_samples(tmp_path / "none.jsonl") == []
    with pytest.raises(DataError, match="no samples in"):
        samples_of(tmp_path / "none.jsonl")
    write_rows([{"prompt": "a"}], tmp_path / "bad.jsonl")
    with pytest.raises(DataError, match=r"bad\.jsonl:1: no sample of `dpo sample`: engine, k, "):
        read_samples(tmp_path / "bad.jsonl")
    write_rows([row("a", 1.0, None) | {"policy": "text"}], tmp_path / "bad.jsonl")
    with pytest.raises(DataError, match=r"bad\.jsonl:1: .*: policy no answer: null, or digest, "):
        read_samples(tmp_path / "bad.jsonl")
