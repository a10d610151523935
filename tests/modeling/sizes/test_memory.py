"""What a recipe's model needs in memory, and what is free: before any weight is loaded, without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dpo_cli.methods._memory import Size
from dpo_cli.modeling.sizes.memory import free_ram, need_of, size_of
from tests.recipe.build import MINIMAL, load_text

GIB = 2**30
SEVEN_BILLION = Size(7 * 10**9, is_exact=False)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("huggyllama/llama-7b", 7e9),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", 135e6),
        ("Qwen/Qwen2.5-0.5B-Instruct", 0.5e9),
        ("Qwen/Qwen3-30B-A3B", 30e9),
        ("mistralai/Mixtral-8x7B-v0.1", 56e9),
        ("org/llama-7b-1M-context", 7e9),
        ("/home/me/70b_notes/runs/llama7b_hh_sft/model", 7e9),
        ("/home/me/llama-7b/runs/polite/model", None),
        ("org/phi-2", None),
        ("org/model-4bit", None),
    ],
)
def test_a_name_says_the_size_and_is_not_taken_for_exact(name: str, parameters: float | None) -> None:
    assert size_of(name) == (None if parameters is None else Size(int(parameters), is_exact=False))


def test_weights_that_lie_here_are_counted_by_their_headers(tmp_path: Path) -> None:
    folder = tmp_path / "org-7b"
    folder.mkdir()
    weights = {"a": torch.zeros(3, 5), "b": torch.zeros(7, dtype=torch.bfloat16)}
    save_file(weights, folder / "model.safetensors")
    save_file(weights, folder / "consolidated.safetensors")  # the same once more, as some hub folders have it

    assert size_of(str(folder)) == Size(22, is_exact=True)


def test_shards_are_counted_once_each_and_a_missing_one_leaves_the_name(tmp_path: Path) -> None:
    folder = tmp_path / "org-7b"
    folder.mkdir()
    save_file({"a": torch.zeros(3, 5), "b": torch.zeros(2)}, folder / "one.safetensors")
    save_file({"c": torch.zeros(7)}, folder / "two.safetensors")
    index = {"weight_map": {"a": "one.safetensors", "b": "one.safetensors", "c": "two.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert size_of(str(folder)) == Size(24, is_exact=True)

    (folder / "two.safetensors").write_bytes(b"\xff" * 100)
    assert size_of(str(folder)) == SEVEN_BILLION
    (folder / "two.safetensors").unlink()
    assert size_of(str(folder)) == SEVEN_BILLION


def test_the_model_of_a_finished_run_is_found(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    save_file({"a": torch.zeros(9)}, tmp_path / "model" / "model.safetensors")

    assert size_of(str(tmp_path)) == Size(9, is_exact=True)


@pytest.mark.parametrize(
    ("overrides", "bytes_per_parameter"),
    [
        ([], 16),
        (["reference.source=live"], 20),
        (["method.name=simpo", "reference.source=live"], 16),
        (["method.name=simpo"], 16),
        (["train.weights=bf16"], 8),
        (["train.weights=bf16", "optim.name=rmsprop"], 6),
        (["optim.name=rmsprop"], 12),
    ],
)
def test_only_a_live_reference_adds_to_weights_gradients_and_moments(
    tmp_path: Path, overrides: list[str], bytes_per_parameter: int
) -> None:
    recipe = load_text(tmp_path, MINIMAL, *overrides).recipe

    assert need_of(recipe, SEVEN_BILLION).n_bytes == bytes_per_parameter * 7 * 10**9


def write_kernel_files(root: Path, available_gib: int, groups: dict[str, tuple[str, int, int]]) -> None:
    """Write what Linux tells: free memory, the own group, and (limit, used, cached), GiB, of groups."""
    proc = root / "proc" / "self"
    proc.mkdir(parents=True)
    (root / "proc" / "meminfo").write_text(
        f"MemTotal: 99 kB\nMemAvailable: {available_gib * GIB // 1024} kB\n"
    )
    (proc / "cgroup").write_text("4:memory:/old\n0::/job/step\n")
    for name, (limit, used, cached) in groups.items():
        folder = root / "cgroup" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text(f"{used * GIB}\n")
        (folder / "memory.stat").write_text(f"anon 5\ninactive_file {cached * GIB}\n")


@pytest.mark.parametrize(
    ("groups", "left_gib"),
    [
        ({}, 1),
        ({"job/step": ("max", 3, 0)}, 1),
        ({"job": (str(GIB), 1, 0), "job/step": ("max", 1, 0)}, 0),
        ({"job": (str(8 * GIB), 8, 7)}, 1),
    ],
)
def test_a_job_has_what_the_machine_and_every_group_around_it_leave(
    tmp_path: Path, groups: dict[str, tuple[str, int, int]], left_gib: int
) -> None:
    write_kernel_files(tmp_path, 1, groups)

    assert free_ram(tmp_path / "proc", tmp_path / "cgroup") == left_gib * GIB


def test_a_machine_that_tells_nothing_counts_as_free(tmp_path: Path) -> None:
    assert free_ram(tmp_path, tmp_path) >= free_ram()


def test_it_is_asked_without_torch() -> None:
    code = "import sys; from dpo_cli.modeling.sizes import memory; memory.size_of('x/y-7b'); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "False\n"
