"""`dpo export`: a run's model for servers and evaluation programs."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from dpo_cli.cli.arguments import JsonOption

TARGETS = ("merged", "vllm", "gguf", "lm-eval", "alpaca-eval")


def export(
    run: Annotated[
        str, typer.Argument(metavar="RUN|MODEL", help="Folder of a run, a model or an adapter, or a hub id.")
    ],
    to: Annotated[
        str, typer.Option("--to", metavar="TARGET", help=f"What it is for: {', '.join(TARGETS)}.")
    ] = "merged",
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder to write; by default RUN-merged here.")
    ] = None,
    dtype: Annotated[
        str, typer.Option(metavar="fp32|bf16", help="fp32 as trained, or bf16: half as large, rounded.")
    ] = "fp32",
    push: Annotated[
        str | None,
        typer.Option(
            "--push", metavar="ORG/NAME", help="Upload the folder to a private repository on the hub."
        ),
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="With --push: let everyone see it.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a model as one whole folder for servers and benchmarks: adapters merged, result checked, next command printed."""
    from dpo_cli.errors import RecipeError

    if to not in TARGETS:
        raise RecipeError.of("--to", f"no such target: '{to[:40]}'", f"one of {', '.join(TARGETS)}")
    if dtype not in ("fp32", "bf16"):
        raise RecipeError.of("--dtype", f"no such type: '{dtype[:40]}'", "fp32 or bf16")
    if public and push is None:
        raise RecipeError.of("--public", "nothing is pushed", "--push ORG/NAME")
    from dpo_cli.export.export import export as write
    from dpo_cli.export.push_to_hub import check_token
    from dpo_cli.export.push_to_hub import push as upload

    if push is not None:
        check_token(push)

    folder = out or Path(
        f"{Path(run).resolve().name if Path(run).exists() else run.rpartition('/')[2]}-merged"
    )
    done = write(run, to, folder, dtype)  # type: ignore[arg-type]
    address = upload(folder, push, public) if push is not None else None
    if as_json:
        print(
            json.dumps(
                {
                    **dataclasses.asdict(done),
                    "pushed": address,
                    "folder": str(done.folder),
                    "gguf": done.gguf and str(done.gguf),
                }
            )
        )
        return
    print("\n".join([*done.lines(), *([f"pushed   {address}"] if address else [])]))
