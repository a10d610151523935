"""Answers to held-out prompts before and after training, side by side."""

from __future__ import annotations

import json
from typing import Any

from dpo_cli.data.token_view import escaped
from dpo_cli.data.tokenize.encode import Encoder
from dpo_cli.engine.generate import answers
from dpo_cli.files import commit
from dpo_cli.metrics.progress import progress
from dpo_cli.modeling.scorer import Scorer
from dpo_cli.train.setup import Parts

FILE_NAME = "samples.json"


def sample_before(parts: Parts) -> None:
    """Answer the first held-out prompts with the policy as it is; a resumed run keeps what its first start wrote. A reward model has no answers."""
    path = parts.run_dir / FILE_NAME
    rows = [] if parts.scorer.is_reward else _distinct_prompts(parts)
    if path.exists() or not rows or not parts.runtime.is_main:
        return
    encoder = Encoder(parts.tokenizer, parts.recipe.data)
    prompts = [encoder.serving_prompt(row.example) for row in rows]
    with progress("answers before training"):
        before = answers(parts.scorer, parts.tokenizer, [ids for _, ids in prompts])
    samples = [
        {"prompt": row.example.prompt, "chosen": row.example.completions[0], "before": answer, "ids": ids}
        for row, (_, ids), answer in zip(rows, prompts, before, strict=True)
    ]
    commit(path.parent, path.name, json.dumps(samples, ensure_ascii=False, indent=1).encode() + b"\n")


def sample_after(parts: Parts, scorer: Scorer) -> list[dict[str, Any]]:
    """Answer the same prompts with the trained policy; give and write prompt, chosen answer, answers before and after."""
    path = parts.run_dir / FILE_NAME
    if not path.exists() or not parts.runtime.is_main:
        return []
    samples: list[dict[str, Any]] = json.loads(path.read_text())
    with progress("answers after training"):
        after = answers(scorer, parts.tokenizer, [sample["ids"] for sample in samples])
    for sample, answer in zip(samples, after, strict=True):
        sample["after"] = answer
    commit(path.parent, path.name, json.dumps(samples, ensure_ascii=False, indent=1).encode() + b"\n")
    return samples


def sample_lines(samples: list[dict[str, Any]]) -> list[str]:
    """Return the samples as lines of text."""
    lines = []
    for sample in samples:
        lines += ["", f"prompt  {last_words(sample['prompt'])}"]
        lines += [f"{when:<7} {one_line(sample[when])}" for when in ("before", "after")]
    return lines[1:]


def last_words(prompt: Any) -> str:
    """Return a prompt's last turn on one line."""
    text = prompt if isinstance(prompt, str) else prompt[-1].get("content", "")
    return one_line(str(text))[-300:]


def one_line(text: str) -> str:
    """Return text without line breaks, and without anything a terminal would act on."""
    return escaped(" ".join(text.split()))


def _distinct_prompts(parts: Parts) -> list[Any]:
    """Return the first held-out row of each prompt, as many as the recipe asks for."""
    first = {row.prompt_key: row for row in reversed(parts.data.eval_rows)}
    return list(reversed(first.values()))[: parts.recipe.train.samples]
