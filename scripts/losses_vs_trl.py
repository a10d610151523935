"""Every loss that TRL 1.16 has too, on the same logits: its value and its gradient with respect to the logits, beside TRL's own.

TRL runs in an interpreter of its own, on its trainers' own loss methods; this file is also the script that runs there. The trainers are
made without their constructor: they get the settings that the loss reads, and a model that gives the logits. Rows that must agree fail
the script where they do not; rows that differ by choice say why.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor

PAIRS, LONGEST, VOCABULARY = 8, 24, 11
BETA, SMOOTHING, TAU, ALPHA, GAMMA = 0.3, 0.1, 0.05, 0.7, 0.5
TOLERANCE = 1e-5
"""Largest relative difference of loss and gradient that fp32 arithmetic may make."""
Result = dict[str, Tensor]
"""`loss` (), `gradient` with respect to the policy's logits."""


class Case(NamedTuple):
    """One comparison."""

    name: str
    method: str
    knobs: dict[str, Any]
    """Ours, over the defaults."""
    trainer: str
    """TRL's: dpo, kto, orpo or cpo."""
    settings: dict[str, Any]
    """TRL's, over `SETTINGS`."""
    batch: str = "near"
    why: str = ""
    """Why the two differ by choice; empty where they must agree."""


SETTINGS = {
    "beta": BETA,
    "label_smoothing": 0.0,
    "f_divergence_type": "reverse_kl",
    "f_alpha_divergence_coef": ALPHA,
}
SMOOTHED = ("robust", "exo_pair", "aot", "aot_unpaired")
PLAIN = (
    "sigmoid", "hinge", "nca_pair", "bco_pair", "sppo_hard", "aot", "aot_unpaired", "apo_zero", "apo_down", "discopop", "sigmoid_norm", "sft",
)  # fmt: skip
DIVERGING = ("sigmoid", "sigmoid_norm", "hinge", "exo_pair", "robust", "discopop")
DIVERGENCES = {"forward_kl": "forward_kl", "js": "js_divergence", "alpha": "alpha_divergence"}


def dpo_case(name: str, loss: Any, trl: dict[str, Any], **knobs: Any) -> Case:
    """Give a comparison with TRL's DPO trainer."""
    names, weights = (list(loss), list(loss.values())) if isinstance(loss, dict) else ([loss], [1.0])
    settings = {"loss_types": names, "loss_weights": weights, **trl}
    return Case(name, "dpo", {"loss": loss, "beta": BETA, **knobs}, "dpo", settings)


def cases() -> list[Case]:
    """List the comparisons, those that must agree first."""
    smooth = {"label_smoothing": SMOOTHING}
    found = [dpo_case(name, name, {}) for name in PLAIN]
    found += [dpo_case(f"{name}, smoothing {SMOOTHING}", name, smooth, **smooth) for name in SMOOTHED]
    for name in DIVERGING:
        extra = smooth if name in SMOOTHED else {}
        for ours, trl in DIVERGENCES.items():
            if (name, ours) == ("discopop", "forward_kl"):
                continue
            knobs = {**extra, "f_divergence": ours, **({"alpha": ALPHA} if ours == "alpha" else {})}
            found.append(dpo_case(f"{name}, {ours}", name, {**extra, "f_divergence_type": trl}, **knobs))
    found += [
        dpo_case(
            "sigmoid, LD-DPO", "sigmoid", {"ld_alpha": 0.3, "precompute_ref_logps": False}, ld_alpha=0.3
        ),
        dpo_case("sigmoid, WPO", "sigmoid", {"use_weighting": True}, wpo=True),
    ]
    found.append(dpo_case("mix", {"sigmoid": 1.0, "bco_pair": 0.5, "sft": 0.25}, {}))
    ipo = {"loss_types": ["ipo"], "loss_weights": [1.0]}
    simpo = {"loss_type": "simpo", "simpo_gamma": GAMMA}
    weights = {"desirable_weight": 1.3, "undesirable_weight": 0.7}
    for name, batch in (("kto", "near"), ("kto", "drifted"), ("apo_zero_unpaired", "drifted")):
        settings = {"loss_type": name, "calculate_KL": name == "kto", **weights}
        found.append(
            Case(f"{name}, {batch}", "kto", {"loss": name, "beta": BETA, **weights}, "kto", settings, batch)
        )
    found += [
        Case("ipo, per token", "ipo", {"beta": BETA, "length_normalize": True}, "dpo", ipo),
        Case("orpo, prompts of 1 token", "orpo", {"beta": BETA}, "orpo", {}),
        Case("simpo", "simpo", {"beta": BETA, "gamma": GAMMA}, "cpo", simpo),
    ]
    return found + chosen_differences(ipo)


def chosen_differences(ipo: dict[str, Any]) -> list[Case]:
    """List the comparisons that differ by choice."""
    smooth = {"label_smoothing": SMOOTHING}
    forward = {"f_divergence_type": "forward_kl"}
    return [
        dpo_case(f"sigmoid, smoothing {SMOOTHING}", "sigmoid", smooth, **smooth)._replace(
            why="TRL's sigmoid ignores label_smoothing; ours is conservative DPO"
        ),
        Case("ipo", "ipo", {"beta": BETA}, "dpo", ipo, why="the paper's sums; TRL takes means per token"),
        Case("orpo, prompts of 6 tokens", "orpo", {"beta": BETA}, "orpo", {}, "prompts",
             "TRL's NLL pools the prompt's tokens; ours is of the completion alone"),
        dpo_case("discopop, forward_kl", "discopop", forward, f_divergence="forward_kl")._replace(
            why="exp(-m) overflows in TRL where its weight is zero"
        ),
        dpo_case("discopop, far", "discopop", {})._replace(batch="far", why="exp(-m) overflows in TRL where its weight is zero"),
        dpo_case("sigmoid, forward_kl, far", "sigmoid", forward, f_divergence="forward_kl")._replace(
            batch="far", why="exp(-log ratio) overflows in TRL; ours is clamped at exp(80), as both clamp alpha"
        ),
    ]  # fmt: skip


class Rows(NamedTuple):
    """A batch: chosen rows, then rejected rows, each a prompt, a completion and padding."""

    ids: Tensor
    """(2B, T)."""
    attention: Tensor
    completion: Tensor
    policy: Tensor
    """Logits, (2B, T, V)."""
    reference: Tensor


def batches() -> dict[str, Rows]:
    """Give the batches: log-ratios of a few nats, the same turned round, with longer prompts, and log-ratios of hundreds of nats."""
    near = rows(1, 0.5)
    drifted = near._replace(
        policy=near.reference, reference=near.policy
    )  # the mean log-ratio changes its sign
    return {"near": near, "drifted": drifted, "prompts": rows(6, 0.5), "far": rows(1, 60.0)}


def rows(n_prompt: int, distance: float) -> Rows:
    """Draw a batch; `distance` is the standard deviation of policy minus reference logits."""
    generator = torch.Generator().manual_seed(7)
    tokens = torch.randint(1, LONGEST + 1, (2 * PAIRS,), generator=generator)
    tokens[0] = 1  # a completion of one token
    place = torch.arange(n_prompt + LONGEST).expand(2 * PAIRS, -1)
    attention = (place < n_prompt + tokens[:, None]).long()
    reference = 2 * torch.randn(*place.shape, VOCABULARY, generator=generator)
    return Rows(
        ids=torch.randint(0, VOCABULARY, place.shape, generator=generator),
        attention=attention,
        completion=attention * (place >= n_prompt),
        policy=reference + distance * torch.randn(*place.shape, VOCABULARY, generator=generator),
        reference=reference,
    )


def log_probs(logits: Tensor, batch: Rows) -> Tensor:
    """Give the log-probability of each completion token, zero elsewhere, (2B, T - 1)."""
    chosen = logits[:, :-1].log_softmax(-1).gather(-1, batch.ids[:, 1:, None])[..., 0]
    return torch.where(batch.completion[:, 1:] == 1, chosen, 0.0)


def log_squares(logits: Tensor) -> Tensor:
    """Give log sum_v p(v)^2 at each position, (2B, T - 1)."""
    return torch.logsumexp(2 * logits[:, :-1].log_softmax(-1), -1)


def ours(case: Case, batch: Rows) -> Result:
    """Run our loss."""
    from dpo_cli import methods
    from dpo_cli.methods._base import mean_loss
    from dpo_cli.types import LogProbs

    def scored(logits: Tensor) -> LogProbs:
        """Sum over completions, in group order."""
        order = torch.arange(2 * PAIRS).view(2, PAIRS).T.flatten()
        each, tokens = log_probs(logits, batch), batch.completion.sum(1)
        shared = torch.minimum(*tokens.view(2, PAIRS)).repeat(2)[:, None]
        scored_before = batch.completion[:, 1:].cumsum(1)
        sure = torch.where(batch.completion[:, 1:] == 1, each - log_squares(logits), 0.0).detach()
        return LogProbs(
            each.sum(1)[order],
            tokens[order],
            public=torch.where(scored_before <= shared, each, 0.0).sum(1)[order],
            confidence=(sure.sum(1) / tokens)[order] if case.knobs.get("wpo") else None,
        )

    method = methods.get(case.method)
    config = method.config(**case.knobs)
    assert not method.problems(config), method.problems(config)
    logits = batch.policy.clone().requires_grad_()
    policy, reference = scored(logits), scored(batch.reference)
    completions, prepared = 2, []
    if case.method == "kto":  # every row is a labelled completion; its mismatched one is the row before it
        policy, completions = replace(policy, labels=torch.arange(2 * PAIRS) % 2 == 0), 1
        prepared = [(policy.total - reference.total).mean()] if method.mismatched(config) else []
    out = method.loss(policy, reference if method.needs_reference else None, config, *prepared)
    loss = mean_loss(out, policy, completions)
    return {"loss": loss.detach(), "gradient": torch.autograd.grad(loss, logits)[0]}


def trls(case: Case, batch: Rows) -> Result:
    """Run TRL's loss."""
    logits = batch.policy.clone().requires_grad_()
    loss = {"dpo": trl_dpo, "kto": trl_kto, "orpo": trl_reference_free, "cpo": trl_reference_free}[
        case.trainer
    ](case, batch, logits)
    return {"loss": loss.detach(), "gradient": torch.autograd.grad(loss, logits)[0]}


def bare(trainer: type, settings: dict[str, Any]) -> Any:
    """Give a trainer that has only these settings and a single process."""
    same = {"gather": lambda x: x, "gather_for_metrics": lambda x: x}
    made = object.__new__(trainer)
    vars(made).update(
        SETTINGS, aux_loss_enabled=False, accelerator=SimpleNamespace(device=torch.device("cpu"), **same)
    )
    vars(made).update(settings)
    return made


def trl_dpo(case: Case, batch: Rows, logits: Tensor) -> Tensor:
    """Give what `DPOTrainer._compute_loss` gives for a model with these logits."""
    from trl import DPOTrainer

    def model(**inputs: Any) -> SimpleNamespace:
        values = log_probs(logits, batch)
        rest = torch.zeros_like(values).detach()
        return SimpleNamespace(
            log_probs=values,
            entropy=rest,
            mean_logits=rest,
            is_top1=rest.bool(),
            log_sum_sq_probs=log_squares(logits),
        )

    reference = log_probs(batch.reference, batch).sum(1)
    trainer = bare(
        DPOTrainer,
        {
            "model": SimpleNamespace(training=True, is_gradient_checkpointing=False),
            "ref_model": lambda **inputs: SimpleNamespace(log_probs=log_probs(batch.reference, batch)),
            "args": SimpleNamespace(discopop_tau=TAU, gradient_checkpointing_kwargs=None),
            "ld_alpha": None,
            "precompute_ref_logps": True,
            "use_weighting": False,
            "_metrics": defaultdict(lambda: defaultdict(list)),
            "_total_train_tokens": 0,
            "_tp_size": 1,
            **case.settings,
        },
    )
    inputs = {
        "input_ids": batch.ids,
        "attention_mask": batch.attention,
        "completion_mask": batch.completion,
        "ref_chosen_logps": reference[:PAIRS],
        "ref_rejected_logps": reference[PAIRS:],
    }
    loss: Tensor = trainer._compute_loss(model, inputs, False)
    return loss


def trl_kto(case: Case, batch: Rows, logits: Tensor) -> Tensor:
    """Give what `KTOTrainer._compute_loss` gives for a model with these logits; a row's mismatched one is the row before it."""
    from trl import KTOTrainer

    def model(input_ids: Tensor, **inputs: Any) -> SimpleNamespace:
        values = log_probs(logits, batch)
        if input_ids is mismatched:
            values = values.roll(1, 0)
        rest = torch.zeros_like(values).detach()
        return SimpleNamespace(log_probs=values, entropy=rest, mean_logits=rest)

    reference = log_probs(batch.reference, batch).sum(1)
    mismatched = batch.ids.roll(1, 0)
    trainer = bare(
        KTOTrainer,
        {
            "model": SimpleNamespace(training=True),
            "precompute_ref_logps": True,
            "_metrics": defaultdict(lambda: defaultdict(list)),
            "_total_train_tokens": 0,
            "_tp_size": 1,
            **case.settings,
        },
    )
    inputs = {
        "input_ids": batch.ids,
        "attention_mask": batch.attention,
        "completion_mask": batch.completion,
        "KL_input_ids": mismatched,
        "KL_attention_mask": batch.attention.roll(1, 0),
        "KL_completion_mask": batch.completion.roll(1, 0),
        "label": torch.arange(2 * PAIRS) < PAIRS,
        "ref_logps": reference,
        "ref_KL_logps": reference.roll(1, 0),
    }
    loss: Tensor = trainer._compute_loss(model, inputs, False)
    return loss


def trl_reference_free(case: Case, batch: Rows, logits: Tensor) -> Tensor:
    """Give what `get_batch_loss_metrics` of the ORPO or CPO trainer gives for a model with these logits."""
    from trl.experimental.cpo import CPOTrainer
    from trl.experimental.orpo import ORPOTrainer

    def model(*inputs: Any, **more: Any) -> SimpleNamespace:
        return SimpleNamespace(logits=logits)

    shared = {
        "is_encoder_decoder": False,
        "padding_value": 0,
        "pad_token_id": 0,
        "alpha": 0.0,
        "cpo_alpha": 0.0,
    }
    trainer = bare({"orpo": ORPOTrainer, "cpo": CPOTrainer}[case.trainer], {**shared, **case.settings})
    labels = torch.where(batch.completion == 1, batch.ids, -100)
    inputs = {}
    for name, here in (("chosen", slice(None, PAIRS)), ("rejected", slice(PAIRS, None))):
        inputs[f"{name}_input_ids"] = batch.ids[here]
        inputs[f"{name}_attention_mask"] = batch.attention[here]
        inputs[f"{name}_labels"] = labels[here]
    loss: Tensor = trainer.get_batch_loss_metrics(model, inputs)[0]
    return loss


def compare(results: dict[str, Result]) -> int:
    """Print the table; give 1 where rows that must agree do not."""
    drawn, failed, largest = batches(), [], 0.0
    print(f"{'loss':32} {'ours':>12} {'TRL':>12} {'difference':>11} {'of gradient':>11}")
    for case in cases():
        mine, theirs = ours(case, drawn[case.batch]), results[case.name]
        loss, gradient = (relative(mine[part], theirs[part]) for part in ("loss", "gradient"))
        note = f"  by choice: {case.why}" if case.why else ""
        print(
            f"{case.name:32} {mine['loss']:12.6f} {theirs['loss']:12.6f} {loss:11.1e} {gradient:11.1e}{note}"
        )
        if not case.why:
            largest = max(largest, loss, gradient)
            failed += [] if loss <= TOLERANCE and gradient <= TOLERANCE else [case.name]
    print(
        f"largest difference where both should agree: {largest:.1e} (allowed {TOLERANCE:.0e}, relative, fp32)"
    )
    print(f"disagree: {', '.join(failed)}" if failed else "all agree")
    return int(bool(failed))


def relative(mine: Tensor, theirs: Tensor) -> float:
    """Give the largest difference as a share of the largest value."""
    return ((mine - theirs).abs().max() / theirs.abs().max()).item()


def main() -> int:
    """Run TRL's side, then ours, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--trl-python", default=".venv-trl/bin/python", help="interpreter that has trl==1.16.0"
    )
    parser.add_argument("--trl-job", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.trl_job:
        drawn = batches()
        torch.save({case.name: trls(case, drawn[case.batch]) for case in cases()}, args.trl_job)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "trl.pt"
        subprocess.run([args.trl_python, __file__, "--trl-job", str(results)], check=True)
        return compare(torch.load(results))


if __name__ == "__main__":
    sys.exit(main())
