"""Every path that needs a GPU, tried in minutes: `python scripts/gpu_check.py` on a machine with one. Needs the package and torch; no network.

Parts run in order of value, each in a process of its own with a time limit, so that a part that crashes, hangs or poisons the device
stops no other. Prints one table and writes `gpu_check.json` with figures, versions, card and tracebacks. `--page FILE...` prints the
page `docs/gpu.md` from such files. Exit code 1 where a part failed.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib
import json
import os
import platform
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

LEAST_S = 10.0
"""A part that has less time left is not started."""
PACKAGES = ("dpo-cli", "torch", "triton", "transformers", "accelerate", "peft", "trl", "bitsandbytes", "vllm")


@dataclass(frozen=True)
class Part:
    """One part: a module with `run(context)`."""

    name: str
    module: str
    share: float
    """Of the whole time, at most; what earlier parts leave over comes on top."""


PARTS = (
    Part("kernels", "scripts.gpu.kernels", 0.25),
    Part("training", "scripts.gpu.training", 0.25),
    Part("step", "scripts.gpu.step", 0.20),
    Part("blocks", "scripts.gpu.blocks", 0.40),
    Part("compiled", "scripts.gpu.compiled", 0.45),
    Part("throughput", "scripts.gpu.throughput", 0.30),
    Part("peer", "scripts.gpu.peer", 0.35),
    Part("memory", "scripts.gpu.memory", 0.35),
    Part("adapters", "scripts.gpu.adapters", 0.40),
    Part("sampling", "scripts.gpu.sampling", 0.10),
    Part("sharding", "scripts.gpu.sharding", 0.10),
    Part("scoring", "scripts.gpu.scoring", 0.10),
)


@dataclass
class Result:
    """What became of a part."""

    name: str
    status: str
    """`ok`, `needs ...`, `FAILED`, `timed out` or `no time left`."""
    seconds: float = 0.0
    figures: dict[str, Any] = field(default_factory=dict)
    failed_checks: list[str] = field(default_factory=list)
    error: str = ""
    """A traceback, or the end of what the process said."""


def main(parts: Sequence[Part] = PARTS) -> int:
    """Run all parts, or one of them in this process; return the exit code."""
    args = arguments()
    if args.page is not None:
        from scripts.gpu.page import joined, page_of

        print(page_of(joined([json.loads(path.read_text(encoding="utf-8")) for path in args.page])), end="")
        return 0
    args.out.mkdir(parents=True, exist_ok=True)
    prepare(args, parts)
    results = run_all(args, parts)
    report = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "device": device_facts(args.device),
        "tiny": args.tiny,
        "versions": versions(),
        "parts": [asdict(result) for result in results],
    }
    path = args.out / "gpu_check.json"
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(table(report))
    print(f"wrote {path}")
    return int(any(result.status in ("FAILED", "timed out") for result in results))


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=8.0, help="of all parts together")
    parser.add_argument("--out", type=Path, default=Path("gpu_check"), help="folder of gpu_check.json")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument(
        "--tiny", action="store_true", help="tiny shapes: does it run at all, in two minutes on a CPU"
    )
    parser.add_argument("--model", type=Path, help="a model folder in place of random weights")
    parser.add_argument("--only", nargs="+", metavar="PART", help="these parts alone")
    parser.add_argument(
        "--page",
        type=Path,
        nargs="+",
        metavar="JSON",
        help="print docs/gpu.md from results, newest last, and stop",
    )
    return parser.parse_args()


def prepare(args: argparse.Namespace, parts: Sequence[Part]) -> None:
    """Set the environment and import what parts share, once for all: they are forked from here, and nothing here touches the GPU."""
    os.environ |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    os.environ["PYTHONPATH"] = f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"
    if args.device == "cpu":
        os.environ |= {"CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "true"}
    for part in parts:
        with contextlib.suppress(Exception):  # the part itself reports what cannot be imported
            importlib.import_module(part.module)


def run_all(args: argparse.Namespace, parts: Sequence[Part]) -> list[Result]:
    """Run each part in a process of its own; say how each ended as it ends."""
    budget = 60 * args.minutes
    end = time.monotonic() + budget
    spare, results = 0.0, []
    for part in parts:
        if args.only and part.name not in args.only:
            continue
        limit = min(budget * part.share + spare, end - time.monotonic())
        result = run_apart(args, part, limit) if limit > LEAST_S else Result(part.name, "no time left")
        spare = max(0.0, limit - result.seconds)
        results.append(result)
        print(f"{part.name:<12} {result.status:<14} {result.seconds:5.0f} s", flush=True)
        for check in result.failed_checks:
            print(f"  FAILED {check}")
        if result.error:
            print("  " + result.error.strip().replace("\n", "\n  "), flush=True)
    return results


def run_apart(args: argparse.Namespace, part: Part, limit: float) -> Result:
    """Run a part in a forked process with a group of its own, and end all of it at the limit."""
    with tempfile.TemporaryDirectory(prefix="gpu-check-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        log, file = folder / "log.txt", folder / "figures.jsonl"
        began = time.monotonic()
        pid = os.fork()
        if pid == 0:
            os.setsid()
            said = os.open(log, os.O_WRONLY | os.O_CREAT)
            os.dup2(said, 1)
            os.dup2(said, 2)
            run_here(args, part, folder, file, began + limit)
            os._exit(0)
        state = _wait(pid, began + limit)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)  # what the part started ends with it
        if state is None:
            os.waitpid(pid, 0)
        result = read_result(part.name, file, time.monotonic() - began)
        if state is None:
            result.status = "timed out"
        elif result.status == "":
            result.status = "FAILED"
            code = os.waitstatus_to_exitcode(state)
            result.error = f"the process ended with {code}:\n{log.read_text(errors='replace')[-2000:]}"
    return result


def _wait(pid: int, end: float) -> int | None:
    """Wait for a process; return its status, or None where it has not ended in time."""
    while time.monotonic() < end:
        found, state = os.waitpid(pid, os.WNOHANG)
        if found:
            return state
        time.sleep(0.05)
    return None


def run_here(args: argparse.Namespace, part: Part, folder: Path, file: Path, deadline: float) -> None:
    """Run a part in this process and write how it ended after its figures."""
    import torch

    from scripts.gpu.context import Context, Unavailable

    here = Context(torch.device(args.device), args.tiny, args.model, folder, file, deadline)
    end: dict[str, str]
    try:
        if here.is_cuda and not torch.cuda.is_available():
            raise Unavailable("needs CUDA")
        importlib.import_module(part.module).run(here)
        end = {"status": "ok"}
    except Unavailable as missing:
        end = {"status": str(missing)}
    except BaseException:  # a part's failure is what this script is there to report
        end = {"status": "FAILED", "error": traceback.format_exc()[-4000:]}
    with file.open("a", encoding="utf-8") as rows:
        rows.write(json.dumps(end) + "\n")


def read_result(name: str, file: Path, seconds: float) -> Result:
    """Return a part's figures and end; the status is empty where its process did not come to an end of its own."""
    result = Result(name, "", round(seconds, 1))
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    for row in map(json.loads, lines):
        if "status" in row:
            result.status, result.error = row["status"], row.get("error", "")
            continue
        result.figures[row["figure"]] = row["value"]
        if row.get("ok") is False:
            result.failed_checks.append(f"{row['figure']}: {row['value']:.3g}, at most {row['limit']:.3g}")
    if result.status == "ok" and result.failed_checks:
        result.status = "FAILED"
    return result


def device_facts(device: str) -> dict[str, Any]:
    """Return what the card, or the CPU, is; after the parts, since it touches the GPU."""
    import torch

    facts: dict[str, Any] = {
        "kind": device,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
    if device == "cuda" and torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        facts |= {
            "name": card.name,
            "memory_gib": round(card.total_memory / 2**30, 1),
            "capability": f"{card.major}.{card.minor}",
            "cuda": torch.version.cuda,
        }
    return facts


def versions() -> dict[str, str]:
    """Return the versions of what the figures depend on."""
    from dpo_cli.packages import version_of

    return {name: version_of(name) for name in PACKAGES}


def table(report: dict[str, Any]) -> str:
    """Return one line per part, and its figures below it."""
    lines = [f"{report['device'].get('name', report['device']['kind'])}, {report['date']}"]
    for part in report["parts"]:
        lines.append(f"{part['name']:<12} {part['status']:<14} {part['seconds']:5.0f} s")
        lines += [f"    {name}: {shown(value)}" for name, value in part["figures"].items()]
    return "\n".join(lines)


def shown(value: Any) -> str:
    """Return a figure as people read it."""
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    if isinstance(value, list):
        return ", ".join(map(shown, value))
    if isinstance(value, dict):
        return "; ".join(f"{name} {shown(each)}" for name, each in value.items())
    return str(value)


if __name__ == "__main__":
    sys.exit(main())
