"""A reward model as the judge: any sequence classifier with one score, of any project or of `method: reward`."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from dpo_cli.data.tokenize.tokenizer import Vocabulary, load_tokenizer
from dpo_cli.errors import ModelError, Problem
from dpo_cli.evaluate.judges._base import Advance, Question, Score, Verdict, by_scores
from dpo_cli.modeling.adapters import continue_adapter
from dpo_cli.modeling.hub import model_start
from dpo_cli.modeling.load import load_reward_model
from dpo_cli.modeling.model_folder import own_code
from dpo_cli.modeling.silence_transformers import quiet
from dpo_cli.recipe.schema import Model
from dpo_cli.reference.fingerprint import weights_digest
from dpo_cli.types import Text

Input = Literal["chat", "pair"]
"""How it reads: a conversation through its chat template, or question and answer as a pair of texts."""
BATCH_TOKENS = 4096
"""Of a batch, padding included."""
CHUNK = 128
"""Questions whose answers are sorted by length together: what a bar moves by."""


class Reward:
    """Scores answers with a loaded model; higher is better, and scores of one prompt compare."""

    def __init__(
        self, name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, reads: Input
    ) -> None:
        """Take the model.

        Args:
            name: for tables.
            model: gives one score a row.
            tokenizer: its own.
            reads: how it was trained to read.
        """
        self.name = name
        self.digest = weights_digest(model)
        self._model, self._tokenizer, self._reads = model, tokenizer, reads
        self._vocabulary = Vocabulary(tokenizer)
        stated = model.config.to_dict().get("max_position_embeddings")
        self._limit = min(stated or tokenizer.model_max_length, tokenizer.model_max_length)

    def judge(self, questions: Sequence[Question], advance: Advance) -> list[Verdict]:
        """Return the verdicts; an answer that is too long for the model has none."""
        verdicts = []
        for start in range(0, len(questions), CHUNK):
            chunk = questions[start : start + CHUNK]
            verdicts += by_scores(chunk, self.scores)
            advance(len(chunk))
        return verdicts

    def facts(self) -> dict[str, Any]:
        """Return how it read."""
        return {"input": self._reads, "digest": self.digest}

    def scores(self, asked: Sequence[tuple[Text, str]]) -> list[Score]:
        """Return the score of each (prompt, answer), or why there is none; padding changes none."""
        rows = [self._encode(prompt, answer) for prompt, answer in asked]
        found: list[Score] = [row if isinstance(row, str) else 0.0 for row in rows]
        fitting = [i for i, row in enumerate(rows) if not isinstance(row, str)]
        order = [fitting[i] for i in np.argsort([-len(rows[i]["input_ids"]) for i in fitting], kind="stable")]
        at = 0
        while at < len(order):
            longest = len(rows[order[at]]["input_ids"])
            # Without a pad token the model cannot find a shorter row's last token.
            size = max(1, BATCH_TOKENS // longest) if self._model.config.pad_token_id is not None else 1
            members = order[at : at + size]
            for member, value in zip(members, self._forward([rows[m] for m in members]), strict=True):
                found[member] = value if math.isfinite(value) else "the judge's score is not finite"
            at += size
        return found

    def _encode(self, prompt: Text, answer: str) -> Any:
        """Return a row for the model, or why there is none."""
        turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
        if self._vocabulary.spells_control([[turn["content"] for turn in turns], answer]):
            return "the text spells a control token of the judge"
        if self._reads == "chat":
            row: Any = self._tokenizer.apply_chat_template(
                [*turns, {"role": "assistant", "content": answer}], return_dict=True
            )
        else:
            question = "\n".join(str(turn["content"]) for turn in turns)
            row = self._tokenizer(question, answer, verbose=False)
        if len(row["input_ids"]) > self._limit:
            return f"longer than the judge's {self._limit:,} tokens"
        return dict(row)

    def _forward(self, rows: Sequence[Any]) -> list[float]:
        padded: Any = rows[0]
        if len(rows) > 1:
            self._tokenizer.padding_side = "right"
            padded = self._tokenizer.pad(list(rows), return_tensors="pt")
        batch = {k: torch.as_tensor(v).to(self._model.device) for k, v in padded.items()}
        batch = {k: v if v.dim() == 2 else v[None] for k, v in batch.items()}
        with torch.no_grad():
            return self._model(**batch).logits[:, 0].float().tolist()


def open_reward(name: str, reads: Input | None) -> Reward:
    """Load a reward model: a folder, a run of `method: reward`, an adapter of one, or a hub id.

    Args:
        name: which.
        reads: how it was trained to read; None: chats where its tokenizer has a template, else pairs.

    Raises:
        ModelError: no such model, pickled weights, code beside it, not one score, a missing head, or no chat template for chats.
    """
    start = model_start(name, None, weights=True, key="--judge")
    tokenizer = load_tokenizer(Model(name=str(start.tokenizer)))
    if start.adapter is not None:
        model = load_reward_model(start.base, len(tokenizer))
        continue_adapter(model, start.adapter)
        model.config.pad_token_id = None  # the base's, which training may have replaced: rows go one by one
    else:
        model = _classifier(start.base)
    reads = reads or ("chat" if tokenizer.chat_template else "pair")
    if reads == "chat" and not tokenizer.chat_template:
        raise ModelError.of("--judge", f"'{name}' has no chat template", "--judge-input pair")
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    called = Path(name).resolve().name if Path(name).exists() else name
    return Reward(called, model.to(device).eval(), tokenizer, reads)  # type: ignore[arg-type]


def _classifier(folder: Path) -> PreTrainedModel:
    where = str(folder)
    if not any(folder.glob("*.safetensors")):
        what = "no *.safetensors weights; pickled weights are not read"
        raise ModelError.of(where, what, f"dpo convert {folder}")
    try:
        code = own_code(json.loads((folder / "config.json").read_text()))
        if code is not None:
            fix = "use a model that transformers has"
            raise ModelError.of(where, f"the model brings its own code ({code})", fix)
        kind: Any = AutoModelForSequenceClassification
        with quiet():
            model, info = kind.from_pretrained(
                folder,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # reported below, like what is missing
                dtype=torch.float32,
            )
    except (OSError, ValueError, SafetensorError) as error:
        what = f"no sequence classifier: {' '.join(str(error).split())[:200]}"
        raise ModelError.of(where, what, "a reward model") from None
    missing = sorted(info["missing_keys"])
    misfit = sorted(name for name, *_ in info["mismatched_keys"])
    faults = [
        (missing, f"weights are missing, its scores would be random: {', '.join(missing[:5])}"),
        (misfit, f"weights of another shape than config.json says: {', '.join(misfit[:5])}"),
        (model.config.num_labels != 1, f"gives {model.config.num_labels} scores an answer, not one"),
    ]
    if any(is_so for is_so, _ in faults):
        fix = "a model that was trained to give one score"
        raise ModelError(Problem(where, what, fix) for is_so, what in faults if is_so)
    return model
