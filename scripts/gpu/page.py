"""`docs/gpu.md` from the result of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

TITLES = {
    "kernels": "Kernels against padded rows in fp32",
    "training": "`dpo train`, whole, killed and resumed",
    "step": "One step seen from the host",
    "blocks": "Blocks compiled and checkpointed",
    "compiled": "`dpo train` with compiled, checkpointed blocks, killed and resumed",
    "throughput": "Throughput of a 1B shape on 2,048-token pairs",
    "peer": "The same step with TRL",
    "memory": "Memory: an 8B shape whole and as a LoRA, the optimizers, peaks beside `dpo plan`",
    "adapters": "Adapters on an 8B shape",
    "sampling": "Sampling",
    "sharding": "`fully_shard` with one rank",
    "scoring": "Scoring without gradient",
}
HEAD = """\
# On a GPU

`python scripts/gpu_check.py` tries every path that needs a GPU and writes `gpu_check.json`; this page is made from `docs/gpu_check.json`,
which holds such results and notes (`python scripts/gpu_check.py --page docs/gpu_check.json > docs/gpu.md`). Weights are random, so losses
mean nothing; speed, memory and exactness do.
"""
NOT_RUN = """
**Not run yet.** The CUDA kernels are written to documented interfaces and checked on a CPU as far as that goes: arguments and shapes on
the meta device, the arithmetic with stand-ins for the kernels, and that no step reads a value from the device.
"""


def joined(reports: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return one report of several from one card and the same versions: of each part the newest result, reports newest last.

    Raises:
        ValueError: they are from different cards or versions, whose figures do not belong on one page.
    """
    first, *others = reports
    if any((each["device"], each["versions"]) != (first["device"], first["versions"]) for each in others):
        raise ValueError("the results are from different machines or versions")
    parts = {part["name"]: part for report in reports for part in report["parts"]}
    return {**reports[-1], "parts": [parts[name] for name in TITLES if name in parts]}


def page_of(report: dict[str, Any] | None) -> str:
    """Return the page; without a report, or with one from a CPU, it says that nothing was run on a GPU."""
    if report is None or report["device"]["kind"] != "cuda" or "name" not in report["device"]:
        return HEAD + NOT_RUN
    card, versions = report["device"], report["versions"]
    used = ", ".join(f"{name} {version}" for name, version in versions.items() if version != "not installed")
    lines = [
        HEAD,
        f"{card['name']} ({card['memory_gib']} GiB, capability {card['capability']}, CUDA {card['cuda']}), {report['date']}; {used}.",
        "",
        "| part | result | seconds |",
        "|---|---|---|",
    ]
    lines += [
        f"| {TITLES.get(part['name'], part['name'])} | {part['status']} | {part['seconds']:.0f} |"
        for part in report["parts"]
    ]
    if report.get("notes"):
        lines += ["", *[f"- {note}" for note in report["notes"]]]
    for part in report["parts"]:
        if part["figures"]:
            lines += ["", f"## {TITLES.get(part['name'], part['name'])}", "", "| | |", "|---|---|"]
            lines += [f"| {name} | {_cell(value)} |" for name, value in part["figures"].items()]
        if part["failed_checks"]:
            lines += ["", "Failed: " + "; ".join(part["failed_checks"]) + "."]
        if part["error"]:
            lines += ["", "```", part["error"].strip().splitlines()[-1], "```"]
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return "<br>".join(f"`{name}` {_cell(each)}" for name, each in value.items())
    if isinstance(value, list):
        return ", ".join(map(_cell, value))
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value).replace("|", "\\|").replace("\n", " ")
