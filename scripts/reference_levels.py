"""Mean log-prob per token of chosen answers under SmolLM2-135M-Instruct, by kind of text: where the threshold in `reference/sanity.py` is from.

SFT-like is what the model answers itself (sampled at temperature 1): what it was tuned on sounds so. Then answers of other models and of
people, through the chat template and as raw transcripts. Takes ten minutes on two CPU cores, nearly all of it sampling.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from dpo_cli.data.load import load_data
from dpo_cli.data.tokenize.tokenizer import load_tokenizer
from dpo_cli.engine.batching import score_groups
from dpo_cli.modeling.load import load_model
from dpo_cli.modeling.scorer import Scorer
from dpo_cli.recipe.load import load
from dpo_cli.types import TokenGroup


def main() -> None:
    """Print a line for each kind of text."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="models/SmolLM2-135M-Instruct")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--rows", type=int, default=60)
    args = parser.parse_args()
    hh, uf = args.data / "hh_helpful_base_dev.jsonl", args.data / "ultrafeedback_400.jsonl"
    scorer = None
    for name, path, chat in (
        ("starter pairs, chat", Path("recipes/starter/train.jsonl"), True),
        ("UltraFeedback, chat", uf, True),
        ("HH helpful, chat", hh, True),
        ("HH helpful, raw transcript", hh, False),
    ):
        groups, tokenizer = groups_of(args.model, path, args.rows, chat)
        scorer = scorer or Scorer(load_model(Path(args.model), len(tokenizer)))
        tell(name, scorer, groups)
        if chat:
            tell("  own answers to the same prompts", scorer, [answered(scorer, group) for group in groups])


def groups_of(
    model: str, path: Path, rows: int, chat: bool
) -> tuple[list[TokenGroup], PreTrainedTokenizerBase]:
    """Give pairs of a file as the model sees them."""
    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder) / "levels.yaml"
        source = json.dumps({"path": str(path.resolve()), "limit": rows, "chat": chat})
        recipe.write_text(
            f"model: {{name: {Path(model).resolve()}}}\n"
            f"data: {{train: [{source}], split: {{eval: 0}}, max_length: 512, cache: {folder}}}\n"
        )
        config = load(str(recipe)).recipe
        tokenizer = load_tokenizer(config.model)
        return load_data(config.data, tokenizer).train, tokenizer


def answered(scorer: Scorer, group: TokenGroup) -> TokenGroup:
    """Give the group with an answer that the model samples at temperature 1 in place of both."""
    torch.manual_seed(0)
    scorer.take("padded")
    prompt = torch.tensor(group.prompt[None].astype("int64"))
    out = scorer.model.generate(
        prompt, do_sample=True, temperature=1.0, top_k=0, max_new_tokens=60, use_cache=True
    )
    ids = out[0, prompt.shape[1] :].numpy().astype("int32")
    return TokenGroup(group.prompt, (ids,), (ids == ids,), group.source)


def tell(name: str, scorer: Scorer, groups: list[TokenGroup]) -> None:
    """Print mean and tenths of the chosen answers' log-prob per token."""
    scorer.take("packed")
    sums = score_groups(scorer, groups, 2048, torch.no_grad)
    per_token = [own[0][0] / own[0][1] for own in sums]
    tenths = statistics.quantiles(per_token, n=10)
    print(
        f"{name:<40} mean {statistics.mean(per_token):6.2f} nats per token,"
        f" 10% {tenths[0]:6.2f}, median {tenths[4]:6.2f}, 90% {tenths[8]:6.2f}  ({len(per_token)} answers)",
        flush=True,
    )


if __name__ == "__main__":
    main()
