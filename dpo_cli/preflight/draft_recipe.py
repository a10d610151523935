"""Draw up a recipe for somebody's data, model and machine: short, commented, everything that was inferred written down."""

from __future__ import annotations

import glob
import math
import os
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import yaml

from dpo_cli.data import token_view
from dpo_cli.data.adapt import FEEDS, WORDS
from dpo_cli.data.detect.infer import Inferred
from dpo_cli.errors import DataError
from dpo_cli.modeling.precision import choose_precision
from dpo_cli.modeling.sizes.size import ModelSize
from dpo_cli.recipe.interpolate import escaped
from dpo_cli.recipe.yaml_marks import scalar
from dpo_cli.types import DataKind, TokenGroup

METHODS: dict[DataKind, str] = {"pairs": "dpo", "labelled": "kto", "targets": "sft"}

BYTES_PER_WEIGHT = 16
"""fp32 weights, gradients and AdamW's two moments."""
ROOM = 0.8
"""Share of the memory that those may take: the rest is for what a forward pass keeps."""
FEW_ROWS = 100
HELD_OUT_ROWS = 200
"""An accuracy near 0.7 measured on so many rows has an interval of about 0.13 in all."""
PLAIN = re.compile(r"[A-Za-z0-9./~][\w./~ -]*(?<! )")


@dataclass(frozen=True)
class Machine:
    """What a recipe is sized to."""

    name: str
    """The GPU's name, or the number of CPU cores."""
    memory_gib: float
    """Of the GPU, or of the machine."""
    has_gpu: bool
    precision: str
    """What `train.precision: auto` would take."""


def this_machine() -> Machine:
    """Return what there is here: the first GPU, or the CPU."""
    has_gpu = torch.cuda.is_available()
    precision = choose_precision("auto", torch.device("cuda" if has_gpu else "cpu"))
    if has_gpu:
        properties = torch.cuda.get_device_properties(0)
        return Machine(properties.name, properties.total_memory / 2**30, True, precision)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    cores = len(os.sched_getaffinity(0))
    return Machine(f"{cores} CPU core{'s' if cores > 1 else ''}", memory / 2**30, False, precision)


def method_for(kinds: Collection[DataKind]) -> str:
    """Return the method that trains on all of these kinds of rows.

    Raises:
        DataError: none does.
    """
    for kind in ("pairs", "labelled", "targets"):
        if set(kinds) <= set(FEEDS[kind]):
            return METHODS[kind]
    holdings = " and ".join(WORDS[kind] for kind in sorted(kinds))
    raise DataError.of("FILE", f"no method takes {holdings} at once", "a recipe for each")


@dataclass(frozen=True)
class Plan:
    """What a recipe is drawn up from."""

    model: str
    """Folder or hub id, as given."""
    size: ModelSize
    sources: Sequence[Inferred]
    groups: Sequence[TokenGroup]
    """The first rows as tokens, cut nowhere."""
    machine: Machine
    chat_template: str | None = None
    merge_system: bool = False
    control_tokens: Sequence[str] = ()

    @property
    def n_rows(self) -> int:
        """Rows that can be trained on, before any is found too long."""
        return sum(source.kept for source in self.sources)

    @property
    def n_examples(self) -> int:
        """What the method trains on: more than rows where a ranking makes many pairs; counted in the first rows."""
        return round(self.n_rows * len(self.groups) / len({group.source for group in self.groups}))

    @property
    def method(self) -> str:
        """The method's name."""
        return method_for({source.format.kind for source in self.sources})

    @property
    def needed_gib(self) -> float:
        """Memory for training all weights, what a forward pass keeps not counted."""
        return self.size.weights * BYTES_PER_WEIGHT / 2**30

    @property
    def fits(self) -> bool:
        """Whether all weights can be trained here."""
        return self.needed_gib < ROOM * self.machine.memory_gib

    def warnings(self) -> list[str]:
        """Return what stands in the way, in words."""
        lines = []
        if not self.fits:
            have = f"{self.machine.name} has {self.machine.memory_gib:.0f}"
            lines.append(
                f"training all weights needs {self.needed_gib:.0f} GiB and more, {have}: take a smaller model"
            )
        if self.n_rows < FEW_ROWS:
            lines.append(
                f"{self.n_rows} rows teach little and measure less: an accuracy on a fifth of them is a guess"
            )
        return lines


def draft(plan: Plan, folder: Path) -> str:
    """Return the text of a recipe that lies in `folder`."""
    machine, rows = plan.machine, plan.n_rows
    batch = 16 if rows < 2000 or not machine.has_gpu else 32 if rows < 20_000 else 64
    share = min(0.2, max(0.002, round(HELD_OUT_ROWS / rows, 3)))
    max_length, why = _max_length(plan)
    steps = math.ceil(plan.n_examples * (1 - share) / batch)
    epochs = 1 if steps >= 40 else 2 if steps >= 20 else 3
    names = ", ".join(Path(source.source.path).name for source in plan.sources)
    room = f"{plan.needed_gib:.1f} GiB for all weights with AdamW" + (
        "" if plan.fits else ": TOO MUCH FOR THIS MACHINE"
    )
    template = f", chat_template: {_path(plan.chat_template, folder)}" if plan.chat_template else ""
    lines = [
        f"# {_one_line(f'{Path(plan.model).name} on {names}, {plan.method.upper()}')}",
        f"# Hardware: {machine.name}, {machine.memory_gib:.0f} GiB. Not run. Drawn up by `dpo init`: what it took the data for stands below",
        _commented(
            f"model: {{name: {_model(plan.model, folder)}{template}}}",
            f"{_millions(plan.size.weights)} weights, {room}",
        ),
        "data:",
        "  train:",
        *(line for source in plan.sources for line in _source(source, folder)),
        _commented(
            f"  split: {{eval: {share:g}}}",
            f"about {rows * share:.0f} of {rows:,} rows are held out, chosen by prompt",
        ),
        *_rendering(plan),
        _commented(f"  max_length: {max_length}", why),
        _commented(f"method: {{name: {plan.method}}}", _why_method(plan)),
        _commented(
            f"optim: {{lr: {_lr(plan):g}}}",
            "lower it if margins run away early, raise it if they stay near 0",
        ),
        _commented(
            f"train: {{batch_size: {batch}, epochs: {epochs}, precision: {machine.precision}}}",
            f"{steps * epochs:,} steps in all",
        ),
        "log: {every: 5}",
    ]
    return "\n".join(lines) + "\n"


def _rendering(plan: Plan) -> list[str]:
    """Return the lines on how rows become tokens, where options said so."""
    lines = []
    if plan.merge_system:
        lines.append(
            _commented(
                "  merge_system: true", "system prompts go in front of the first user turn: serve so too"
            )
        )
    if plan.control_tokens:
        lines.append(
            _commented(
                f"  control_tokens: [{', '.join(map(_quoted, plan.control_tokens))}]", "all others stay text"
            )
        )
    return lines


_WHY_METHOD = {
    "dpo": "for pairs; beta is 0.1, smaller lets the model drift further from where it starts",
    "kto": "for thumbs, each row alone",
    "sft": "for answers to imitate",
}


def _why_method(plan: Plan) -> str:
    """Return what the method is for, and which other one takes rankings whole."""
    is_ranking = plan.method == "dpo" and plan.n_examples > plan.n_rows
    return _WHY_METHOD[plan.method] + ("; plackett_luce takes each ranking whole" if is_ranking else "")


def _source(found: Inferred, folder: Path) -> list[str]:
    source = found.source
    facts = [f"{found.rows:,} rows", *(f"{n:,} left out: {reason}" for reason, n in found.dropped.items())]
    facts += [f"not used: {', '.join(found.unused)}"] if found.unused else []
    lines = [
        _commented(f"    - path: {_path(source.path, folder)}", "; ".join(facts)),
        f"      format: {source.format}",
    ]
    if source.columns:
        columns = ", ".join(f"{name}: {_quoted(column)}" for name, column in source.columns.items())
        lines.append(_commented(f"      columns: {{{columns}}}", "the format's name: the file's"))
    for name in ("gather", "better", "skip_null"):
        if (value := getattr(source, name)) not in (None, False, "rows"):
            lines.append(f"      {name}: {str(value).lower()}")
    if source.ignore:
        lines.append(f"      ignore: [{', '.join(map(_quoted, source.ignore))}]")
    if source.labels:
        groups = (f"{name}: [{', '.join(map(_quoted, words))}]" for name, words in source.labels.items())
        lines.append(f"      labels: {{{', '.join(groups)}}}")
    return lines


def _max_length(plan: Plan) -> tuple[int, str]:
    """Return a length that hardly any row exceeds, and why."""
    lengths = [len(group.prompt) + max(map(len, group.completions)) for group in plan.groups]
    wanted = int(np.quantile(lengths, 0.99))
    limit = min(plan.size.positions, 4096 if plan.machine.has_gpu else 1024)
    chosen = min(limit, 64 * math.ceil((wanted + 1) / 64))
    share = np.mean([length > chosen for length in lengths])
    cut = f"; {share:.0%} will be cut" if share >= 0.01 else ""
    return (
        chosen,
        f"tokens of prompt and completion; of {len(lengths)} examples 99% have at most {wanted}, the longest {max(lengths)}{cut}",
    )


def _lr(plan: Plan) -> float:
    """Return a peak learning rate for all weights: small models take, and need, larger ones."""
    sizes = (5e8, 2e9, 5e9, math.inf)
    rates = (2e-5, 1e-5, 1e-5, 5e-6) if plan.method == "sft" else (1e-5, 5e-6, 1e-6, 5e-7)
    return next(rate for size, rate in zip(sizes, rates, strict=True) if plan.size.weights < size)


def _millions(n: int) -> str:
    return f"{n / 1e9:.1f}B" if n >= 1e9 else f"{n / 1e6:.0f}M" if n >= 1e6 else f"{n:,}"


def _commented(line: str, comment: str) -> str:
    """Return the line with a comment, which nothing that files hold can end."""
    return f"{line} # {_one_line(comment)}"


def _one_line(text: str) -> str:
    return token_view.escaped(" ".join(text.split()))


def _model(name: str, folder: Path) -> str:
    return _path(name, folder, "./") if os.path.isdir(os.path.expanduser(name)) else _quoted(name)


def _path(path: str, folder: Path, prefix: str = "") -> str:
    """Write a path as the recipe's folder sees it; what is no place here, such as a hub id, and what is absolute stays."""
    is_here = os.path.exists(path) or glob.has_magic(path)
    if not is_here or os.path.isabs(path) or path.startswith("~"):
        return _quoted(path)
    relative = os.path.relpath(path, folder)
    return _quoted(relative if relative.startswith("..") else prefix + relative)


def _quoted(text: str) -> str:
    """Write a text as YAML reads it back, unquoted where that is safe."""
    if PLAIN.fullmatch(text) and isinstance(scalar(text), str):
        return text
    quoted = yaml.safe_dump(escaped(text), default_style='"', allow_unicode=True, width=math.inf)
    return str(quoted).strip()
