"""Pickled checkpoints: tensors come over bit by bit, anything else is refused and not run."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from dpo_cli.cli.app import app
from dpo_cli.errors import ModelError, StorageError
from dpo_cli.export.unpickle import INDEX, convert
from dpo_cli.modeling.adapters import attach, continue_adapter
from dpo_cli.modeling.load import load_model
from dpo_cli.recipe.schema import Adapter
from tests.fakes import write_model


class Marker:
    """Would leave a file behind if a pickle were run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.fixture
def pickled(tmp_path: Path) -> Path:
    """A model folder with a pickle in place of its safetensors."""
    folder = write_model(tmp_path / "old")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    (folder / "modeling_old.py").write_text("raise SystemExit")
    return folder


def test_a_folder_comes_over_with_its_tokenizer_and_without_its_code(pickled: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["convert", str(pickled), "--out", str(tmp_path / "new"), "--json"])
    model = load_model(tmp_path / "new", 300)
    stated = torch.load(pickled / "pytorch_model.bin", weights_only=True)

    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["tensors"] == len(stated)
    assert all(torch.equal(value, stated[name]) for name, value in model.state_dict().items())
    names = {path.name for path in (tmp_path / "new").iterdir()}
    assert {"config.json", "tokenizer.json", "model.safetensors"} <= names
    assert not any(name.endswith((".py", ".bin")) for name in names)
    assert {path.name for path in tmp_path.iterdir()} == {"old", "new"}, "nothing is left beside it"
    with pytest.raises(StorageError, match="is there already"):
        convert(pickled, tmp_path / "new")


def test_an_adapters_pickle_comes_over_and_loads_onto_its_base(tmp_path: Path) -> None:
    base, old = write_model(tmp_path / "base"), tmp_path / "old"
    model = load_model(base, 300)
    attach(model, Adapter(rank=4), 0)
    model.save_pretrained(old)
    stated = load_file(old / "adapter_model.safetensors")
    torch.save(stated, old / "adapter_model.bin")
    (old / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match=f"dpo convert {old}"):
        continue_adapter(load_model(base, 300), old)

    convert(old, tmp_path / "new")
    assert {path.name for path in (tmp_path / "new").glob("adapter*")} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    continue_adapter(load_model(base, 300), tmp_path / "new")


def test_shards_tied_and_sliced_tensors_and_other_types_keep_their_bytes(tmp_path: Path) -> None:
    folder = tmp_path / "old"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    base = torch.arange(12.0).reshape(3, 4)
    first = {"a": base, "tied": base, "slice": base[1:], "turned": base.T}
    second = {"half": torch.tensor([1.5, float("nan")], dtype=torch.bfloat16), "one": torch.tensor(7)}
    for name, tensors in (("one.bin", first), ("two.bin", second)):
        torch.save(tensors, folder / name)
    weight_map = dict.fromkeys(first, "one.bin") | dict.fromkeys(second, "two.bin")
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    done = convert(folder, tmp_path / "new")
    index = json.loads((tmp_path / "new" / "model.safetensors.index.json").read_text())["weight_map"]
    read = {name: load_file(tmp_path / "new" / file)[name] for name, file in index.items()}

    assert (done.files, done.tensors) == (2, 6) and not (tmp_path / "new" / INDEX).exists()
    assert all(torch.equal(read[name], tensor) for name, tensor in first.items())
    assert read["half"].dtype == torch.bfloat16 and read["half"][0] == 1.5 and read["half"][1].isnan()
    assert read["one"].shape == () and read["one"] == 7


def test_fault_093_a_pickle_that_holds_more_than_tensors_is_refused_unread(
    pickled: Path, tmp_path: Path
) -> None:
    file, marker = pickled / "pytorch_model.bin", tmp_path / "marker"
    hostile: list[tuple[Any, str]] = [
        ({"a": torch.ones(2), "b": Marker(marker)}, "holds more than tensors"),
        (Marker(marker), "holds more than tensors"),
        ({"state_dict": {"a": torch.ones(2)}}, "no flat table of tensors"),
        ({}, "no flat table of tensors"),
    ]
    for content, told in hostile:
        for write in (torch.save, lambda value, path: Path(path).write_bytes(pickle.dumps(value))):
            write(content, file)
            with pytest.raises(ModelError, match="not read: ") as caught:
                convert(pickled, tmp_path / "new")
            assert write is not torch.save or told in str(caught.value)
    for garbage in (b"", b"PK\x03\x04 no zip", b"\x80\x02.", b"\x80\x02q"):
        file.write_bytes(garbage)
        with pytest.raises(ModelError, match="not read: "):
            convert(pickled, tmp_path / "new")
    assert not marker.exists() and not (tmp_path / "new").exists()


def test_folders_without_pickles_are_told(pickled: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="it has safetensors already"):
        convert(write_model(tmp_path / "fine"), tmp_path / "new")
    with pytest.raises(ModelError, match=r"no config\.json"):
        convert(tmp_path, tmp_path / "new")
    (pickled / INDEX).write_text(json.dumps({"weight_map": {"a": "../../elsewhere.bin"}}))
    with pytest.raises(ModelError, match=r"no such pickled weights: \.\./\.\./elsewhere\.bin"):
        convert(pickled, tmp_path / "new")
