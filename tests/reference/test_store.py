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
from dpo_cli.reference.fingerprint import namespace, remembered_digest, weights_digest
from dpo_cli.reference.maintenance import clean, namespaces
from dpo_cli.reference.store import Store
from tests.fakes import tiny_llama, write_model


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


def test_what_is_written_after_a_gc_can_be_seen_and_collected_again(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.write(values(3))
    clean(tmp_path, None, ["ns"], dry=False)
    assert not list((tmp_path / "v1").iterdir())

    store.check_writable()
    store.write(values(2, start=5))
    store.merge()
    store.note_use(tmp_path / "run")

    (found,) = namespaces(tmp_path)
    assert (found.about["model"], found.completions, found.runs) == ("tiny", 2, [str(tmp_path / "run")])


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


def test_digests_are_remembered_by_the_very_files(tmp_path: Path) -> None:
    from dpo_cli.modeling.load import load_model

    folder, memo = write_model(tmp_path / "model"), tmp_path / "memo" / "digests.json"
    model = load_model(folder, 300)
    digest = remembered_digest(model, [folder], memo)
    assert digest == weights_digest(model)

    with torch.no_grad():
        model.lm_head.weight[0, 0] += 1
    assert remembered_digest(model, [folder], memo) == digest, "the files are the same: taken from the memo"
    model.save_pretrained(folder)
    assert remembered_digest(model, [folder], memo) == weights_digest(model) != digest


@pytest.mark.parametrize("text", ["", "[]", "{half"])
def test_a_damaged_memo_only_costs_time(tmp_path: Path, text: str) -> None:
    from dpo_cli.modeling.load import load_model

    folder, memo = write_model(tmp_path / "model"), tmp_path / "digests.json"
    memo.write_text(text)
    model = load_model(folder, 300)

    assert remembered_digest(model, [folder], memo) == weights_digest(model)


def test_a_second_read_gives_only_what_is_new(tmp_path: Path) -> None:
    reader = open_store(tmp_path)
    open_store(tmp_path).write(values(10))
    assert reader.read() == values(10)
    open_store(tmp_path).write(values(5, start=10))

    assert reader.read() == values(5, start=10)
    assert reader.read() == {}


def test_only_the_wanted_keys_are_given(tmp_path: Path) -> None:
    open_store(tmp_path).write(values(100))

    assert open_store(tmp_path).read(set(values(3)) | {"f" * 32}) == values(3)


def test_merging_keeps_every_value_and_segments_of_others(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    other = open_store(tmp_path).write(values(4, start=100))
    for start in range(0, 30, 10):
        store.write(values(10, start))
    store.merge()

    assert open_store(tmp_path).read() == values(30) | values(4, start=100)
    assert len(segments(tmp_path)) == 2
    assert other.exists()


def test_a_segment_merged_while_it_is_read_is_found_in_its_new_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, reader = open_store(tmp_path), open_store(tmp_path)
    writer.write(values(5))
    writer.write(values(5, start=5))
    listed = reader._segments

    def listed_just_before() -> list[Path]:
        found = list(listed())
        writer.merge()
        return found

    monkeypatch.setattr(reader, "_segments", listed_just_before)

    assert reader.read() == values(10)
    assert reader.set_aside == 0


def test_adding_a_row_leaves_all_other_files_alone(tmp_path: Path) -> None:
    open_store(tmp_path).write(values(1000))
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in segments(tmp_path)}
    store = open_store(tmp_path)
    store.write(values(1, start=5000))
    store.merge()

    after = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in segments(tmp_path)}
    assert before.items() <= after.items()
    assert len(after) == 2


def test_values_a_little_apart_are_one_and_far_apart_an_error(tmp_path: Path) -> None:
    key = "a" * 32
    open_store(tmp_path).write({key: (-10.0, 5)})
    open_store(tmp_path).write({key: (-10.001, 5)})
    assert open_store(tmp_path).read()[key][0] in (-10.0, -10.001)

    open_store(tmp_path).write({key: (-10.5, 5)})
    with pytest.raises(StorageError, match="two values") as caught:
        open_store(tmp_path).read()
    assert "-10.5000" in str(caught.value)


@pytest.mark.parametrize("other", [b"", b"PAR1 not really PAR1"])
def test_fault_035_a_file_that_is_no_segment_of_this_version_is_set_aside(
    tmp_path: Path, other: bytes
) -> None:
    import hashlib

    store = open_store(tmp_path)
    name = hashlib.blake2b(other, digest_size=16).hexdigest()
    (store.folder / "seg" / f"{name}-3.parquet").write_bytes(other)

    assert store.read() == {}
    assert store.set_aside == 3
    assert [path.name for path in (store.folder / "bad").iterdir()] == [f"{name}-3.parquet"]


def test_imported_values_are_known_as_such_and_own_ones_win(tmp_path: Path) -> None:
    open_store(tmp_path).take_in(values(10))
    open_store(tmp_path).write(values(3))
    store = open_store(tmp_path)

    assert store.read() == values(10)
    assert store.unproven == set(values(7, start=3))
