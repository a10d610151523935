"""`dpo convert`: the one door for pickled weights."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from dpo_cli.cli.arguments import JsonOption


def convert(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER", help="Folder with pytorch_model.bin or its shards, or adapter_model.bin."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Folder to write; by default FOLDER-safetensors here."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write pickled weights as safetensors. Reads tensors only: a file that holds anything else is refused and never run."""
    from dpo_cli.export.unpickle import convert as write

    done = write(folder, out or Path(f"{folder.resolve().name}-safetensors"))
    if as_json:
        print(json.dumps({**dataclasses.asdict(done), "folder": str(done.folder)}))
        return
    print(
        f"{done.folder}   {done.tensors:,} tensors in {done.files:,} files, {done.gib:.2f} GiB, read back and equal"
    )
