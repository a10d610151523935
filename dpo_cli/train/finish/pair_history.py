"""The end of a ledger: all training pairs scored once more, and what that says of them."""

from __future__ import annotations

from dpo_cli import methods
from dpo_cli.data.split import pair_key
from dpo_cli.evaluate.pairs.held_out import judged
from dpo_cli.evaluate.pairs.pair_history import FOLDER, VISITS, Texts, ledger_of, read_visits, write_ledger
from dpo_cli.methods._base import TIE_NATS, annotated
from dpo_cli.train.setup import Parts


def keep_ledger(parts: Parts) -> list[str]:
    """Score the training pairs with the policy as it is, each once on any number of ranks, and write the ledger; every rank calls this.

    Returns:
        What the user should know, a line each.

    Raises:
        StorageError: it cannot be written.
    """
    rows, config = parts.data.train_rows, parts.recipe.method
    groups = [row.group for row in rows]
    policy, reference = parts.scored(groups, parts.scorer, "training pairs once more")
    if not parts.runtime.is_main:
        return []
    tie_nats = TIE_NATS[parts.runtime.precision]
    _, metrics = judged(annotated(policy, groups), reference, methods.get(config.name), config, tie_nats)
    is_tie = metrics["rewards/accuracies"] == 0.5  # differences that arithmetic makes are none
    folder = parts.run_dir / FOLDER
    ledger = ledger_of(
        [pair_key(row.example) for row in rows],
        [row.group.source for row in rows],
        read_visits(folder / VISITS),
        metrics["rewards/margins"].masked_fill(is_tie, 0).double().numpy(),
    )
    texts: Texts = {
        key: {
            "prompt": row.example.prompt,
            "chosen": row.example.completions[0],
            "rejected": row.example.completions[1],
        }
        for key, row in ((pair_key(row.example), row) for row in rows)
    }
    write_ledger(ledger, texts, folder)
    n, look = int(ledger.flips.suspected.sum()), f"`dpo ledger {parts.run_dir}` shows them"
    return [f"{n:,} of {len(ledger):,} training pairs look mislabelled: {look}"] if n else []
