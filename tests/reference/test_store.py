"""The store of reference log-probs: nothing stale, torn or poisoned is used, nothing is scored twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dpo_cli.errors import StorageError
from dpo_cli.reference.store import Store, namespace
from dpo_cli.reference.values import COMMIT_GROUPS, ReferenceValues
from dpo_cli.types import TokenGroup
from tests.fakes import tiny_llama
from tests.modeling.test_scorer import random_group


def values(n: int, start: int = 0) -> dict[str, tuple[float, int]]:
    return {f"{i:032x}": (-1.5 * i - 0.1, i + 1) for i in range(start, start + n)}


def open_store(root: Path, name: str = "ns") -> Store:
    return Store(root, name, {"model": "tiny"})


def segments(root: Path) -> list[Path]:
    return sorted(root.rglob("*.parquet"))


def test_values_come_back_exactly(tmp_path: Path) -> None:
    open_store(tmp_path).write(values(100))
    open_store(tmp_path).write(values(50, start=100))

    assert open_store(tmp_path).read() == values(150)
    assert len(segments(tmp_path)) == 2


def test_equal_content_is_one_segment(tmp_path: Path) -> None:
    first, second = (open_store(tmp_path).write(values(10)) for _ in range(2))

    assert first == second
    assert segments(tmp_path) == [first]


def test_fault_034_one_flipped_bit_anywhere_is_found_and_set_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rng = random.Random(0)
    for trial in range(25):
        root = tmp_path / str(trial)
        open_store(root).write(values(64))
        kept = open_store(root).write(values(8, start=1000))
        path = next(path for path in segments(root) if path != kept)
        payload = bytearray(path.read_bytes())
        bit = rng.randrange(8 * len(payload))
        payload[bit // 8] ^= 1 << bit % 8
        path.write_bytes(payload)

        assert open_store(root).read() == values(8, start=1000)
        assert (root / "v1" / "ns" / "bad" / path.name).exists()
        assert str(root / "v1" / "ns" / "bad" / path.name) in caplog.text


@pytest.mark.parametrize("keep", [0, 1, 100])
def test_fault_034_a_truncated_segment_is_set_aside(tmp_path: Path, keep: int) -> None:
    path = open_store(tmp_path).write(values(64))
    path.write_bytes(path.read_bytes()[:keep])

    assert open_store(tmp_path).read() == {}


@pytest.mark.parametrize("bad", [(float("nan"), 3), (0.5, 3), (-1.0, 0), (float("-inf"), 2)])
def test_fault_035_values_that_are_no_log_probs_are_refused(tmp_path: Path, bad: tuple[float, int]) -> None:
    open_store(tmp_path).write({"a" * 32: bad})

    assert open_store(tmp_path).read() == {}


def test_a_folder_that_cannot_be_made_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(StorageError, match=r"reference\.store="):
        open_store(tmp_path / "file")


KILLED = """
import sys, pathlib
from dpo_cli.reference.store import Store
from tests.reference.test_store import values
store = Store(pathlib.Path(sys.argv[1]), "ns", {})
for i in range(10_000):
    store.write(values(20, start=20 * i))
    print(i, flush=True)
"""


def test_fault_028_a_writer_killed_at_any_time_leaves_only_whole_segments(tmp_path: Path) -> None:
    """The store's part of the fault: `kill -9` while it commits; what was announced is there, and nothing wrong."""
    for trial in range(3):
        root = tmp_path / str(trial)
        writer = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(root)], stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
        )
        assert writer.stdout is not None
        announced = [int(writer.stdout.readline()) for _ in range(5 + 7 * trial)]
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        found = open_store(root).read()

        assert set(values(20 * (announced[-1] + 1))) <= set(found)
        assert found == values(len(found))


def test_fault_032_one_weight_or_the_arithmetic_changes_the_namespace() -> None:
    model = tiny_llama()
    name = namespace(model, "fp32", "packed")

    assert namespace(model, "bf16", "packed") != name
    assert namespace(model, "fp32", "padded") != name
    with torch.no_grad():
        model.lm_head.weight[0, 0] += 1e-7
    assert namespace(model, "fp32", "packed") != name


def test_fault_033_moved_or_resharded_weights_keep_the_namespace(tmp_path: Path) -> None:
    from dpo_cli.modeling.load import load_model

    model = tiny_llama()
    for folder, shard in (("one", "1GB"), ("elsewhere", "20KB")):
        model.save_pretrained(tmp_path / folder, max_shard_size=shard)
    one, many = (load_model(tmp_path / folder, 300) for folder in ("one", "elsewhere"))

    assert len(list((tmp_path / "elsewhere").glob("*.safetensors"))) > 1
    assert namespace(one, "fp32", "packed") == namespace(many, "fp32", "packed")


class Counter:
    """Scores groups by their lengths and counts how many it was given."""

    def __init__(self) -> None:
        self.groups = 0

    def __call__(self, groups: list[TokenGroup]) -> list[list[tuple[float, int]]]:
        self.groups += len(groups)
        return [
            [(-float(len(ids)), n) for ids, n in zip(g.completions, g.scored, strict=True)] for g in groups
        ]


def test_fault_030_only_new_rows_are_scored(tmp_path: Path) -> None:
    import numpy as np

    rng = np.random.default_rng(0)
    groups = [random_group(rng, 8, (4, 6)) for _ in range(20)]
    count, store = Counter(), open_store(tmp_path)
    ReferenceValues(store.read()).fill(groups, count, store.write)
    new = [random_group(rng, 8, (4, 6)) for _ in range(5)]
    changed = [*new, *groups[5:], groups[7], groups[8]][::-1]
    again = ReferenceValues(store.read())

    assert again.fill(changed, count, store.write) == 10
    assert count.groups == 25
    assert again.lookup([groups[9]]).total.tolist() == [-4.0, -6.0]


def test_values_are_committed_in_portions(tmp_path: Path) -> None:
    import numpy as np

    rng = np.random.default_rng(0)
    groups = [random_group(rng, 3, (2,)) for _ in range(COMMIT_GROUPS + 3)]
    store = open_store(tmp_path)
    ReferenceValues().fill(groups, Counter(), store.write)

    assert len(segments(tmp_path)) == 2
