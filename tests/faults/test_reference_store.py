"""The reference store under faults: `dpo precompute-ref` and `dpo train` as they are, on a tiny model."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from dpo_cli.errors import ModelError, StorageError
from dpo_cli.recipe.load import load
from dpo_cli.reference.precompute import open_session, precompute
from dpo_cli.reference.segments import read_segment
from tests.fakes import byte_tokenizer, pair_rows, write_jsonl, write_model
from tests.patience import starts

TEXT = """\
model: {name: ./tiny}
data: {train: [{path: rows.jsonl}], split: {eval: 0.1}, cache: tokens}
optim: {lr: 1e-3}
reference: {store: store}
train: {batch_size: 8, max_steps: 2, precision: fp32, samples: 0, eval_every: 0}
log: {every: 1}
"""


def write_recipe(folder: Path, n: int) -> Path:
    """Write a tiny model, n pairs and a recipe with a store beside it."""
    write_model(folder / "tiny")
    write_jsonl(folder / "rows.jsonl", pair_rows(n))
    path = folder / "tiny.yaml"
    path.write_text(TEXT)
    return path


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """Give a recipe of 40 pairs."""
    return write_recipe(tmp_path, 40)


def filled(recipe: Path, *overrides: str) -> dict[str, Any]:
    """Fill the store in this process."""
    with open_session(load(str(recipe), overrides)) as session:
        return precompute(session).as_dict()


def start(
    recipe: Path, *arguments: str, before: tuple[str, ...] = (), **options: Any
) -> subprocess.Popen[str]:
    """Start `dpo precompute-ref` in a process of its own."""
    command = [*before, sys.executable, "-m", "dpo_cli", "precompute-ref", str(recipe), "--json", *arguments]
    settings = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, env=settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def ended(process: subprocess.Popen[str], n_starts: float = 150) -> tuple[dict[str, Any], str]:
    """Wait for a process that should end well; give its JSON and what it said."""
    out, err = process.communicate(timeout=starts(n_starts))
    assert process.returncode == 0, err
    return json.loads(out), err


def kill_after_a_commit(recipe: Path, store: Path, seconds: float) -> None:
    """Start a fill, and `kill -9` it so long after it committed something."""
    before = len(stored(store))
    process = start(recipe, f"reference.store={store}")
    while process.poll() is None and len(stored(store)) == before:
        time.sleep(0.01)
    time.sleep(seconds)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def stored(folder: Path) -> dict[str, tuple[float, int]]:
    """Give everything in a store, read file by file, also while others write to it."""
    found: dict[str, tuple[float, int]] = {}
    for path in folder.rglob("seg/*.parquet"):
        with contextlib.suppress(FileNotFoundError):  # merged meanwhile
            found |= read_segment(path)
    return found


def assert_close(some: dict[str, tuple[float, int]], all_of: dict[str, tuple[float, int]]) -> None:
    """Every value is right to 1e-5 nats per token."""
    wrong = [k for k, (v, n) in some.items() if n != all_of[k][1] or abs(v - all_of[k][0]) > 1e-5 * n]
    assert not wrong


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a recipe of 3,000 pairs, enough to be interrupted, with its tokens in the cache."""
    return write_recipe(tmp_path_factory.mktemp("large"), 3000)


@pytest.fixture(scope="module")
def truth(large: Path) -> dict[str, tuple[float, int]]:
    """Give the values of an uninterrupted fill."""
    folder = large.parent / "truth"
    ended(start(large, f"reference.store={folder}"))
    return stored(folder)


@pytest.mark.slow
def test_fault_028_a_killed_fill_is_continued(
    large: Path, truth: dict[str, tuple[float, int]], tmp_path: Path
) -> None:
    store = tmp_path / "store"
    rng = random.Random(0)
    for _ in range(2):
        kill_after_a_commit(large, store, rng.uniform(0, 0.2))
    committed = stored(store)
    done, _ = ended(start(large, f"reference.store={store}"))

    assert 0 < len(committed) < len(truth)
    assert_close(committed, truth)
    assert done["reused"] == len(committed)
    assert done["computed"] == len(truth) - len(committed)
    assert_close(stored(store), truth)
    assert len(stored(store)) == len(truth)


def test_fault_029_two_processes_divide_the_work(
    large: Path, truth: dict[str, tuple[float, int]], tmp_path: Path
) -> None:
    store = f"reference.store={tmp_path / 'store'}"
    results = [ended(process)[0] for process in [start(large, store), start(large, store)]]

    assert_close(stored(tmp_path / "store"), truth)
    assert len(stored(tmp_path / "store")) == len(truth)
    assert sum(each["computed"] for each in results) < 1.3 * len(truth)


def test_fault_031_what_does_not_change_the_reference_costs_no_forward(recipe: Path) -> None:
    first = filled(recipe)
    rows = (recipe.parent / "rows.jsonl").read_text().splitlines(keepends=True)
    (recipe.parent / "rows.jsonl").write_text("".join(rows[::-1][:30]))

    for override in (
        "optim.lr=1e-4",
        "method.beta=0.5",
        "train.seed=7",
        "train.batch_size=3",
        "train.epochs=2",
    ):
        again = filled(recipe, override)
        assert (again["computed"], again["reused"]) == (0, 60), override
        assert again["namespace"] == first["namespace"]


def test_fault_030_five_more_pairs_are_ten_forwards(recipe: Path) -> None:
    filled(recipe)
    write_jsonl(recipe.parent / "rows.jsonl", pair_rows(45))

    assert filled(recipe)["computed"] == 10


def test_fault_032_only_rows_whose_ids_changed_are_scored(recipe: Path) -> None:
    filled(recipe)
    with open_session(load(str(recipe))) as session:
        longest = max(
            len(group.prompt) + len(ids) for group in session.data.train for ids in group.completions
        )
        full = {key for row in session.rows for key in row.group.keys}
    limit = f"data.max_length={longest - 3}"
    with open_session(load(str(recipe), [limit])) as session:
        cut = {key for row in session.rows for key in row.group.keys}

    assert 0 < len(cut - full) < len(cut)
    assert filled(recipe, limit)["computed"] == len(cut - full)


def test_fault_032_other_weights_or_precision_are_another_namespace(recipe: Path) -> None:
    first = filled(recipe)
    bf16 = filled(recipe, "reference.precision=bf16")
    shutil.rmtree(recipe.parent / "tiny")
    write_model(recipe.parent / "tiny", seed=1)
    other = filled(recipe)

    assert len({each["namespace"] for each in (first, bf16, other)}) == 3
    assert bf16["computed"] == other["computed"] == first["computed"] == 80


def test_fault_033_moved_and_resharded_weights_cost_no_forward(recipe: Path) -> None:
    from transformers import AutoModelForCausalLM

    filled(recipe)
    moved = recipe.parent / "elsewhere"
    shutil.copytree(recipe.parent / "tiny", moved)
    (moved / "model.safetensors").unlink()
    AutoModelForCausalLM.from_pretrained(recipe.parent / "tiny").save_pretrained(moved, max_shard_size="20KB")
    shutil.rmtree(recipe.parent / "tiny")

    assert len(list(moved.glob("*.safetensors"))) > 1
    assert filled(recipe, f"model.name={moved}")["computed"] == 0


def test_fault_034_a_flipped_bit_costs_the_rows_of_its_segment(
    recipe: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = filled(recipe)
    write_jsonl(recipe.parent / "rows.jsonl", pair_rows(45))
    filled(recipe)
    path = next(path for path in recipe.parent.rglob("seg/*.parquet") if path.stem.endswith("-10"))
    payload = bytearray(path.read_bytes())
    payload[len(payload) // 2] ^= 4
    path.write_bytes(payload)

    again = filled(recipe)

    assert (again["computed"], again["reused"], again["set_aside"]) == (10, first["computed"], 10)
    assert str(path.parents[1] / "bad" / path.name) in caplog.text


def test_fault_036_a_reference_with_another_vocabulary_is_refused(recipe: Path) -> None:
    other = write_model(recipe.parent / "other", seed=1)
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens(["wort"])
    tokenizer.save_pretrained(other)

    with pytest.raises(
        ModelError, match=r"vocabulary differs .*: \w{12} \(262 ids\) and \w{12} \(261 ids\)"
    ) as caught:
        filled(recipe, f"reference.model={other}")
    assert caught.value.code == 4


def test_a_reference_of_its_own_has_its_own_values(recipe: Path) -> None:
    first = filled(recipe)
    other = write_model(recipe.parent / "other", seed=1)

    assert filled(recipe, f"reference.model={other}")["computed"] == 80
    assert filled(recipe, f"reference.model={recipe.parent / 'tiny'}")["namespace"] == first["namespace"]


def test_fault_037_a_poisoned_store_stops_before_training(recipe: Path) -> None:
    from dpo_cli.reference.store import Store

    done = filled(recipe)
    for path in recipe.parent.rglob("seg/*.parquet"):
        values = read_segment(path)
        path.unlink()
    root = recipe.parent / "store"
    Store(root, done["namespace"], {}).write({k: (v - 1.0, n) for k, (v, n) in values.items()})

    with pytest.raises(StorageError, match="are not the reference's") as caught:
        filled(recipe)
    assert caught.value.code == 5


WITHOUT_ROOT = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all")
"""Root may write everywhere; so it gives that up."""


@pytest.mark.skipif(os.geteuid() == 0 and not shutil.which("setpriv"), reason="root may write everywhere")
def test_fault_039_a_read_only_store_serves_what_it_holds_and_says_at_once_what_it_lacks(
    recipe: Path,
) -> None:
    filled(recipe)
    before = WITHOUT_ROOT if os.geteuid() == 0 else ()
    folders = [path for path in (recipe.parent / "store").rglob("*") if path.is_dir()]
    for path in [*folders, recipe.parent / "store"]:
        path.chmod(0o500)
    whole, _ = ended(start(recipe, before=before))
    write_jsonl(recipe.parent / "rows.jsonl", pair_rows(45))
    process = start(recipe, before=before)
    _, err = process.communicate()
    for path in [*folders, recipe.parent / "store"]:
        path.chmod(0o700)

    assert (whole["computed"], whole["reused"]) == (0, 80)
    assert process.returncode == 5
    assert "values are missing and cannot be written: Permission denied" in err


def test_fault_041_a_full_disk_keeps_what_was_committed(
    large: Path, truth: dict[str, tuple[float, int]], tmp_path: Path
) -> None:
    """Files may grow to 6,000 bytes: a portion of 64 pairs fits, the merged segment at the end does not."""
    import resource

    def full() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (6_800, 6_800))

    store = tmp_path / "store"
    process = start(large, f"reference.store={store}", preexec_fn=full)
    _, err = process.communicate()

    assert process.returncode == 5, err
    assert "reference log-probs not written: File too large" in err
    assert "what is committed is kept" in err
    assert not list(store.rglob(".tmp-*"))
    assert stored(store)
    assert_close(stored(store), truth)


@pytest.mark.slow
def test_fault_042_two_ranks_score_each_row_once(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, 7)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = [sys.executable, *launcher, "-m", "dpo_cli", "precompute-ref", str(recipe), "--json"]
    settings = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(command, env=settings, capture_output=True, text=True, timeout=starts(150))

    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.strip().splitlines()[-1])
    assert (result["computed"], result["reused"]) == (14, 0)
    assert len(stored(tmp_path / "store")) == 14
    assert filled(recipe)["computed"] == 0


@pytest.mark.slow
def test_fault_040_a_run_outlives_its_store(recipe: Path) -> None:
    """Killed after its first checkpoint; the store is gone then, and the run goes on with its pinned values."""
    command = [
        sys.executable,
        "-m",
        "dpo_cli",
        "train",
        str(recipe),
        f"train.output_dir={recipe.parent / 'runs'}",
    ]
    command += ["train.max_steps=400", "train.epochs=100", "train.save_every=10", "log.every=100"]
    settings = os.environ | {"OMP_NUM_THREADS": "1"}
    first = subprocess.Popen(command, env=settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while first.poll() is None and not list(recipe.parent.glob("runs/*/checkpoints/step-*")):
        time.sleep(0.02)
    shutil.rmtree(recipe.parent / "store")
    first.send_signal(signal.SIGKILL)
    _, err = first.communicate()
    assert first.returncode == -signal.SIGKILL, err
    second = subprocess.run(command, env=settings, capture_output=True, text=True, timeout=starts(150))

    assert second.returncode == 0, second.stderr
    assert "reference log-probs: 80 found, 0 scored" in second.stderr
    assert "resuming after step" in second.stderr
    assert not (recipe.parent / "store").exists()
