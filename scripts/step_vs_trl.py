"""One optimizer step of ours beside TRL 1.16's on the same model, rows and settings: logged loss, gradient norm, gradient, new weights.

Ours is the step that `dpo train` takes: packed rows in several micro-batches, the reference from the store. TRL's are its real trainers on
one padded batch, in an interpreter of its own; this file is also the script that runs there. Both tokenise the same text. The gradient is
AdamW's first moment after the step over 1 - beta1: that of every weight, clipped. Rows that must agree fail the script where they do not;
rows that differ by choice say why, and fail it where they agree.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from dpo_cli.recipe.schema import Recipe

N_ROWS = 8
LETTERS = "abcdefghijklmnopqrstuvwxyz"
LR, CLIP_NORM, WEIGHT_DECAY, BETAS = 1e-2, 1.0, 0.1, (0.8, 0.99)
EPS = 1e-3
"""AdamW's first step is lr g / (|g| + eps). At the usual 1e-8 that is the sign of g, and the sign of a gradient which is rounding noise
says nothing: weights were up to 2.2e-2 lr apart that way. At 1e-3 noise stays noise, and where eps is added counts too."""
TOLERANCE = 1e-5
"""Largest relative difference of loss, norm and gradient that fp32 arithmetic may make."""
WEIGHT_TOLERANCE = 1e-3
"""Largest difference of a weight, in learning rates: a gradient of 0.1 off by `TOLERANCE`, over eps."""
Result = dict[str, Tensor]
"""`loss` and `norm` as logged, (), float64; `gradient` and `weights` of all parameters, flat, fp32."""


class Case(NamedTuple):
    """One comparison."""

    name: str
    method: str
    knobs: dict[str, Any]
    """Ours, over the defaults."""
    trainer: str
    """TRL's: dpo, kto, orpo or cpo."""
    settings: dict[str, Any]
    """TRL's, over the defaults."""
    rows: str = "pairs"
    """Name of the file that both read, see `write_rows`."""
    why: str = ""
    """Why the two differ by choice; empty where they must agree."""


def dpo_case(loss: str, **knobs: Any) -> Case:
    """Give a comparison of a pairwise loss with a reference."""
    knobs = {"beta": 0.1, **knobs}
    return Case(loss, "dpo", {"loss": loss, **knobs}, "dpo", {"loss_type": [loss], **knobs})


def cases() -> list[Case]:
    """List the comparisons, those that must agree first."""
    ipo, orpo = {"beta": 0.3, "length_normalize": True}, {"beta": 0.5}
    kto = {"beta": 0.1, "desirable_weight": 0.9, "undesirable_weight": 1.2}
    simpo = {"loss_type": "simpo", "beta": 2.0, "simpo_gamma": 1.0, "cpo_alpha": 0.0}
    pooled = "TRL's NLL pools the prompt's tokens; ours is of the completion alone"
    order = "TRL's mismatched completions hang on the order and the batch; ours on the rows alone"
    return [
        *(dpo_case(loss) for loss in ("sigmoid", "hinge", "apo_zero")),
        dpo_case("robust", label_smoothing=0.1),
        Case("ipo, per token", "ipo", ipo, "dpo", {"loss_type": ["ipo"], "beta": 0.3}),
        Case("kto", "kto", kto, "kto", kto, "labelled"),
        Case("orpo, prompts of 1 token", "orpo", orpo, "orpo", orpo, "short"),
        Case("orpo, nll_on all", "orpo", {**orpo, "nll_on": "all"}, "orpo", orpo),
        Case("simpo", "simpo", {"beta": 2.0, "gamma": 1.0}, "cpo", simpo),
        Case("orpo", "orpo", orpo, "orpo", orpo, why=pooled),
        Case("kto, rows in another order", "kto", kto, "kto", kto, "unordered", order),
    ]


def write_models(work: Path) -> None:
    """Write policy and reference, two random Llamas, and a tokenizer with one token a letter.

    The reference is the sharper one, so that letters it did not choose are less likely under it: KTO's drift is then positive, not clamped.
    """
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
    from transformers.utils import logging

    words = {word: i for i, word in enumerate(("<pad>", "</s>", " ", *LETTERS))}
    backend = Tokenizer(models.WordLevel(words))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="</s>")
    logging.disable_progress_bar()
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    for name, seed, spread in (("policy", 0, 0.1), ("reference", 1, 0.2)):
        config = LlamaConfig(vocab_size=len(words), num_key_value_heads=2, initializer_range=spread, **size)
        torch.manual_seed(seed)
        LlamaForCausalLM(config).save_pretrained(work / name)
        tokenizer.save_pretrained(work / name)


def write_rows(work: Path) -> None:
    """Write pairs, pairs with prompts of one token, and labelled completions in two orders.

    TRL's KTO gives a row's prompt the completion of the row before it, in a circle over the batch; ours takes the next row in the order of
    keys. In falling order of keys the two are the same.
    """
    from dpo_cli.data.load import load_data
    from dpo_cli.data.tokenize.tokenizer import load_tokenizer

    draw = random.Random(0)

    def texts(longest: int) -> list[str]:
        return ["".join(draw.choices(LETTERS + " ", k=draw.randint(1, longest))) for _ in range(N_ROWS)]

    def write(name: str, columns: tuple[str, ...], *values: Any) -> None:
        rows = (dict(zip(columns, row, strict=True)) for row in zip(*values, strict=True))
        (work / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    prompts, chosen, rejected, labels = texts(30), texts(40), texts(40), [i % 3 > 0 for i in range(N_ROWS)]
    pair, labelled = ("prompt", "chosen", "rejected"), ("prompt", "completion", "label")
    write("pairs", pair, prompts, chosen, rejected)
    write("short", pair, LETTERS[:N_ROWS], chosen, rejected)
    write("unordered", labelled, prompts, chosen, labels)
    recipe = recipe_of(work, "unordered", "kto", {})
    keys = [group.keys for group in load_data(recipe.data, load_tokenizer(recipe.model), "labelled").train]
    falling = sorted(range(N_ROWS), key=keys.__getitem__, reverse=True)
    write("labelled", labelled, *([column[i] for i in falling] for column in (prompts, chosen, labels)))


def recipe_of(work: Path, rows: str, method: str, knobs: dict[str, Any]) -> Recipe:
    """Give a recipe of one step."""
    from dpo_cli.recipe.load import load

    path = work / "step.yaml"
    path.write_text(
        "model: {name: ./policy, attention: packed}\n"
        f"data: {{train: [{{path: {rows}.jsonl}}], split: {{eval: 0}}}}\n"
        "reference: {model: ./reference}\n"
        f"optim: {{lr: {LR}, schedule: constant, warmup: 0, clip_norm: {CLIP_NORM}, weight_decay: {WEIGHT_DECAY},"
        f" betas: {list(BETAS)}, eps: {EPS}}}\n"
        f"train: {{batch_size: {N_ROWS}, max_steps: 1, precision: fp32, max_tokens_per_micro_batch: 200}}\n"
    )
    settings = {"name": method, **knobs}
    return load(str(path), [f"method.{key}={json.dumps(value)}" for key, value in settings.items()]).recipe


def ours(case: Case, work: Path) -> Result:
    """Take our step."""
    from dpo_cli import methods
    from dpo_cli.engine.runtime import Runtime
    from dpo_cli.metrics.speed import Speed
    from dpo_cli.train.choices import lengths_of
    from dpo_cli.train.loop import optimizer_step
    from dpo_cli.train.optim import build_optimizer
    from dpo_cli.train.setup import build
    from dpo_cli.train.state import Run

    recipe, runtime = recipe_of(work, case.rows, case.method, case.knobs), Runtime("fp32")
    with contextlib.redirect_stderr(io.StringIO()):  # what a user is told of the reference
        parts = build(recipe, runtime, Path(tempfile.mkdtemp(dir=work)))
    run = Run(
        recipe=recipe,
        runtime=runtime,
        scorer=parts.scorer,
        model=runtime.prepare(parts.scorer),
        optimizer=build_optimizer(parts.scorer, recipe.optim),
        method=methods.get(case.method),
        groups=parts.data.train,
        lengths=lengths_of(parts.data.train, parts.choices.path),
        mismatched=parts.data.mismatched,
        reference=parts.reference,
        total_steps=parts.n_steps,
        token_budget=parts.choices.token_budget,
        events=(),
        speed=Speed(0, parts.n_steps),
    )
    optimizer_step(run)
    logged = run.meter.reduce()
    return result(logged["train/loss"], logged["train/grad_norm"], parts.scorer.model, run.optimizer)


def trls(case: Case, work: Path) -> Result:
    """Take TRL's step; in TRL's environment only."""
    import trl
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl.experimental import cpo, orpo

    made_of: dict[str, tuple[Any, Any]] = {
        "dpo": (trl.DPOTrainer, trl.DPOConfig),
        "kto": (trl.KTOTrainer, trl.KTOConfig),
        "orpo": (orpo.ORPOTrainer, orpo.ORPOConfig),
        "cpo": (cpo.CPOTrainer, cpo.CPOConfig),
    }
    trainer_class, config_class = made_of[case.trainer]
    config = config_class(
        output_dir=str(work / "trl"),
        max_steps=1,
        per_device_train_batch_size=N_ROWS,
        learning_rate=LR,
        lr_scheduler_type="constant",
        max_grad_norm=CLIP_NORM,
        weight_decay=WEIGHT_DECAY,
        adam_beta1=BETAS[0],
        adam_beta2=BETAS[1],
        adam_epsilon=EPS,
        bf16=False,
        use_cpu=True,
        logging_steps=1,
        save_strategy="no",
        **case.settings,
    )
    names = ["policy", "reference"] if case.trainer in ("dpo", "kto") else ["policy"]
    models = [AutoModelForCausalLM.from_pretrained(work / name, dtype=torch.float32) for name in names]
    lines = (work / f"{case.rows}.jsonl").read_text().splitlines()
    trainer = trainer_class(
        **dict(zip(("model", "ref_model"), models, strict=False)),
        args=config,
        train_dataset=Dataset.from_list([json.loads(line) for line in lines]),
        processing_class=AutoTokenizer.from_pretrained(work / "policy"),
    )
    trainer.train()
    logged = trainer.state.log_history[0]
    return result(logged["loss"], logged["grad_norm"], trainer.model, trainer.optimizer)


def result(loss: float, norm: float, model: nn.Module, optimizer: Any) -> Result:
    """Give what a step logged and left behind."""
    moments = [optimizer.state[weight]["exp_avg"].flatten() for weight in model.parameters()]
    return {
        "loss": torch.tensor(loss, dtype=torch.float64),
        "norm": torch.tensor(norm, dtype=torch.float64),
        "gradient": torch.cat(moments) / (1 - BETAS[0]),
        "weights": nn.utils.parameters_to_vector(model.parameters()).detach(),
    }


def compare(results: dict[str, Result], work: Path) -> int:
    """Print the table; give 1 where a row is not as `cases` says."""
    wrong, largest = [], [0.0] * 5
    columns = ("loss", "norm", "gradient", "element", "weights")
    print(f"{'':26} {'ours':>9} {'TRL':>9} {' '.join(f'{name:>8}' for name in columns)}")
    for case in cases():
        mine, theirs = ours(case, work), results[case.name]
        apart = differences(mine, theirs)
        losses, told = f"{mine['loss']:9.6f} {theirs['loss']:9.6f}", " ".join(f"{x:8.1e}" for x in apart)
        print(f"{case.name:26} {losses} {told}{case.why and f'  by choice: {case.why}'}")
        agree = max(apart[:4]) <= TOLERANCE and apart[4] <= WEIGHT_TOLERANCE
        wrong += [case.name] if agree == bool(case.why) else []
        if not case.why:
            largest = [max(pair) for pair in zip(largest, apart, strict=True)]
    print(
        f"largest difference where both should agree: {max(largest[:4]):.1e} relative (allowed {TOLERANCE:.0e}, fp32),"
        f" of a weight {largest[4]:.1e} learning rates (allowed {WEIGHT_TOLERANCE:.0e})"
    )
    print(f"not as stated: {', '.join(wrong)}" if wrong else "all as stated")
    return int(bool(wrong))


def differences(mine: Result, theirs: Result) -> list[float]:
    """Give relative differences of loss, norm, gradient (L2) and its largest element, and of the weights in learning rates."""
    apart = {name: mine[name].double() - theirs[name].double() for name in theirs}
    parts = [
        (apart["loss"] / theirs["loss"]).abs(),
        (apart["norm"] / theirs["norm"]).abs(),
        apart["gradient"].norm() / theirs["gradient"].norm(),
        apart["gradient"].abs().max() / theirs["gradient"].abs().max(),
        apart["weights"].abs().max() / LR,
    ]
    return [part.item() for part in parts]


def main() -> int:
    """Run TRL's side, then ours, and print the table."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--trl-python", default=".venv-trl/bin/python", help="one that has trl==1.16.0")
    parser.add_argument("--trl-job", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.trl_job:
        torch.save({case.name: trls(case, args.trl_job) for case in cases()}, args.trl_job / "trl.pt")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        os.environ |= {"XDG_CACHE_HOME": folder, "ACCELERATE_USE_CPU": "true", "HF_HUB_OFFLINE": "1"}
        write_models(work)
        write_rows(work)
        command = [args.trl_python, __file__, "--trl-job", folder]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"TRL's side failed with {done.returncode}:\n{done.stderr[-3000:]}")
        return compare(torch.load(work / "trl.pt"), work)


if __name__ == "__main__":
    sys.exit(main())
