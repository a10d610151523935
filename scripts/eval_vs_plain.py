"""`dpo eval` beside plain transformers: the same HH pairs, one padded row a completion, float32, nothing of ours imported.

    dpo eval MODEL reference.model=OTHER 'data.eval=[{path: hh.jsonl, limit: 790}]' data.max_length=256 method.beta=0.1 --out there
    dpo eval OTHER reference.model=MODEL 'data.eval=[{path: hh.jsonl, limit: 790}]' data.max_length=256 method.beta=0.1 --out back
    python scripts/eval_vs_plain.py MODEL OTHER hh.jsonl --beta 0.1 there/pairs.parquet back/pairs.parquet

Every row is looked up by its line in the file; rows above the length limit are left out, since what is cut there is a choice.
Exit code 1 where a mean margin differs by 1e-3, or an accuracy at all outside ties.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

import pyarrow.parquet as pq
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

Chat = list[dict[str, str]]
TIE_NATS = 1e-3


def main() -> None:
    """Score both models, print the figures side by side."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("other")
    parser.add_argument("data", type=Path)
    parser.add_argument("rows", type=Path, nargs=2, help="pairs.parquet of model against other, and back")
    parser.add_argument("--beta", type=float, default=0.1)
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8)
    args = parser.parse_args()
    tables = [pq.read_table(path).to_pydict() for path in args.rows]
    assert tables[0]["source"] == tables[1]["source"], "the files hold other rows"
    lines = [int(source.rsplit(":", 1)[1]) for source in tables[0]["source"]]
    text = args.data.read_text(encoding="utf-8").splitlines()
    chats = [json.loads(text[line - 1]) for line in lines]
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    both = [[encode(tokenizer, chat[side]) for side in ("chosen", "rejected")] for chat in chats]
    kept = [max(len(ids) for ids, _ in pair) <= args.max_length for pair in both]
    encoded = [each for pair, is_kept in zip(both, kept, strict=True) if is_kept for each in pair]
    sums = [
        log_probs(AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32).eval(), encoded, args.batch)
        for name in (args.model, args.other)
    ]
    ratio = (sums[0] - sums[1]).reshape(-1, 2)
    margins = (ratio[:, 0] - ratio[:, 1]).double()
    is_same = True
    for table, plain, who in ((tables[0], margins, "there"), (tables[1], -margins, "back")):
        ours = torch.tensor(table["margin"], dtype=torch.float64)[torch.tensor(kept)]
        clear = plain.abs() > 2 * TIE_NATS
        accuracy = [float((each[clear] > 0).double().mean()) for each in (ours, plain)]
        mean = [float(ours.mean()), args.beta * float(plain.mean())]
        apart = float((ours - args.beta * plain).abs().max())
        is_same &= abs(mean[0] - mean[1]) < 1e-3 and accuracy[0] == accuracy[1]
        print(
            f"{who:<5} n={len(ours)} ({int((~clear).sum())} near ties)   accuracy {accuracy[0]:.6f} plain {accuracy[1]:.6f}"
            f"   mean margin {mean[0]:+.6f} plain {mean[1]:+.6f}   largest difference of a row {apart:.1e}"
        )
    print("the same" if is_same else "NOT the same")
    sys.exit(0 if is_same else 1)


def encode(tokenizer: PreTrainedTokenizerBase, transcript: str) -> tuple[list[int], int]:
    """Give the token ids of an HH transcript in the model's chat template, and how many of them are the prompt."""
    parts = re.split(r"\n\n(Human|Assistant): ?", transcript)[1:]
    roles = {"Human": "user", "Assistant": "assistant"}
    chat: Chat = [
        {"role": roles[who], "content": said.strip()}
        for who, said in zip(parts[::2], parts[1::2], strict=True)
    ]
    prompt = tokenizer.apply_chat_template(chat[:-1], add_generation_prompt=True, tokenize=False)
    whole = tokenizer.apply_chat_template(chat, tokenize=False).rstrip("\n")  # the end token is the last
    assert whole.startswith(prompt)
    ids = [tokenizer(part, add_special_tokens=False).input_ids for part in (prompt, whole[len(prompt) :])]
    return ids[0] + ids[1], len(ids[0])


@torch.no_grad()
def log_probs(model: PreTrainedModel, encoded: list[tuple[list[int], int]], batch: int) -> torch.Tensor:
    """Give the summed log-prob of each completion, nats, (n,): right-padded rows, the longest first."""
    order = sorted(range(len(encoded)), key=lambda at: -len(encoded[at][0]))
    sums = torch.zeros(len(encoded))
    for start in range(0, len(order), batch):
        these = order[start : start + batch]
        longest = len(encoded[these[0]][0])
        ids, seen = (torch.zeros(len(these), longest, dtype=torch.long) for _ in range(2))
        for row, at in enumerate(these):
            tokens = encoded[at][0]
            ids[row, : len(tokens)], seen[row, : len(tokens)] = torch.tensor(tokens), 1
        logps = model(input_ids=ids, attention_mask=seen).logits[:, :-1].log_softmax(-1)
        chosen = logps.gather(-1, ids[:, 1:, None])[..., 0]
        for row, at in enumerate(these):
            tokens, prompt = encoded[at]
            sums[at] = chosen[row, prompt - 1 : len(tokens) - 1].sum()
        print(f"{start + len(these):,} of {len(order):,} completions", end="\r", file=sys.stderr)
    return sums


if __name__ == "__main__":
    main()
