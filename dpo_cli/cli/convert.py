"""`dpo convert`: the one door for pickled weights."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer


def convert(
    folder: Annotated[
        Path, typer.Argument(help="Model folder with pytorch_model.bin or its shards, or an adapter's.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder to write; by default FOLDER's name with -safetensors, here.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Write a folder's pickled weights as safetensors. Only tensors are read: anything else is refused, and not run."""
    from dpo_cli.modeling.convert import convert as write

    done = write(folder, out or Path(f"{folder.resolve().name}-safetensors"))
    if as_json:
        print(json.dumps({**dataclasses.asdict(done), "folder": str(done.folder)}))
        return
    print(
        f"{done.folder}   {done.tensors:,} tensors in {done.files:,} files, {done.gib:.2f} GiB, read back and equal"
    )
