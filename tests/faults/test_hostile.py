"""What others made to do harm: files that fill memory, pickles under other names, credentials in the wrong place, no network, no reader."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash

from dpo_cli.runs.checkpoint import DIGEST, MANIFEST, OPTIMIZER
from tests.fakes import pair_rows, write_jsonl
from tests.faults.runs import ROOT, Dpo, Outcome, only_run, outcome, status_of
from tests.patience import starts

pytestmark = pytest.mark.slow

ROOM = {"RLIMIT_AS": 3 * 2**30}


class _Marker:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def huge_header() -> bytes:
    """A safetensors file whose header claims to be 2^60 bytes long."""
    return struct.pack("<Q", 2**60) + b"{}"


def overlapping() -> bytes:
    """A safetensors file with two tensors in the same bytes."""
    tensor = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
    header = json.dumps({"a": tensor, "b": tensor}).encode()
    return struct.pack("<Q", len(header)) + header + b"\0" * 16


@pytest.fixture
def stopped(dpo: Dpo, tiny: Path, tmp_path: Path) -> Path:
    """Give an output folder with a run that has one checkpoint."""
    at = [("dpo_cli.train.loop._update", 2, "SIGTERM")]
    done = dpo(
        "train",
        str(tiny),
        f"train.output_dir={tmp_path / 'runs'}",
        "train.save_every=0",
        cwd=tiny.parent,
        at=at,
    )
    assert done.rc == 75, done.err
    return tmp_path / "runs"


@pytest.mark.parametrize("kind", ["pickle", "huge header", "overlap"])
def test_fault_093_and_100_a_forged_checkpoint_is_refused_unread(
    dpo: Dpo, tiny: Path, stopped: Path, tmp_path: Path, kind: str
) -> None:
    """Its manifest is made to fit: a digest proves that nothing changed, not who wrote it."""
    marker = tmp_path / "marker"
    content = {
        "pickle": pickle.dumps(_Marker(marker)),
        "huge header": huge_header(),
        "overlap": overlapping(),
    }[kind]
    (checkpoint,) = (only_run(stopped) / "checkpoints").iterdir()
    (checkpoint / OPTIMIZER).write_bytes(content)
    manifest = json.loads((checkpoint / MANIFEST).read_text())
    manifest["files"][OPTIMIZER] = {"size": len(content), DIGEST: xxhash.xxh3_128(content).hexdigest()}
    del manifest["seal"]
    canonical = json.dumps(manifest, sort_keys=True).encode()
    seal = hashlib.blake2b(canonical, digest_size=16).hexdigest()
    (checkpoint / MANIFEST).write_text(json.dumps({**manifest, "seal": seal}))

    done = dpo("train", str(tiny), f"train.output_dir={stopped}", cwd=tiny.parent, limits=ROOM)

    assert done.rc == 5, done.err
    assert done.err.splitlines()[-1].startswith(
        f"dpo: error[5] {checkpoint / OPTIMIZER}: is no safetensors file"
    )
    assert not marker.exists()


@pytest.mark.parametrize("content", [huge_header(), overlapping()], ids=["huge header", "overlap"])
def test_fault_100_forged_weights_are_refused_in_bounded_memory(
    dpo: Dpo, tiny: Path, tmp_path: Path, content: bytes
) -> None:
    model = Path(shutil.copytree(tiny.parent / "tiny", tmp_path / "model"))
    (model / "model.safetensors").write_bytes(content)

    done = dpo("train", str(tiny), f"model.name={model}", cwd=tmp_path, limits=ROOM)

    assert done.rc == 4, done.err
    assert done.err.splitlines()[-1].startswith("dpo: error[4] ") and "Traceback" not in done.err


def test_fault_100_a_parquet_file_that_unfolds_without_end_is_refused_in_bounded_memory(
    dpo: Dpo, tiny: Path, tmp_path: Path
) -> None:
    """60 GiB of text in 1.5 kB: one megabyte, named sixty thousand times."""
    once = pa.DictionaryArray.from_arrays(pa.array([0] * 60_000, pa.int32()), pa.array(["x" * 2**20]))
    path = tmp_path / "bomb.parquet"
    pq.write_table(
        pa.table({name: once for name in ("prompt", "chosen", "rejected")}), path, compression="zstd"
    )
    assert path.stat().st_size < 100_000

    done = dpo("check", str(tiny), f"data.train=[{{path: {path}}}]", cwd=tmp_path, limits=ROOM)

    assert done.rc == 3, done.err
    assert "bomb.parquet: unfolds to more than" in done.err


def test_fault_050_a_line_of_50_mb_is_refused_in_bounded_memory(dpo: Dpo, tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    path.write_text('{"prompt": "' + "x" * 50_000_000 + '", "chosen": "a", "rejected": "b"}\n')

    done = dpo("check", str(tiny), f"data.train=[{{path: {path}}}]", cwd=tmp_path, limits=ROOM)

    assert done.rc == 3, done.err
    assert "long.jsonl:1: the line is longer than 32 MiB" in done.err


def test_fault_088_a_process_without_memory_names_the_rows_and_the_same_run_goes_on_with_less(
    dpo: Dpo, tiny: Path, tmp_path: Path
) -> None:
    text = " ".join(str(number) for number in range(200))
    rows = [{**row, "chosen": f"{text} {row['chosen']}"} for row in pair_rows(16)]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    overrides = [
        f"data.train=[{{path: {tmp_path / 'rows.jsonl'}}}]",
        "data.split.eval=0",
        "data.max_length=4096",
        "model.attention=padded",
        f"train.output_dir={tmp_path / 'runs'}",
        f"reference.store={tmp_path / 'store'}",
        "train.max_steps=2",
    ]
    large = "train.max_tokens_per_micro_batch=100000"
    narrow = {"RLIMIT_AS": 900 * 2**20}  # room for one row, not for all of them at once

    first = dpo("train", str(tiny), *overrides, large, cwd=tiny.parent, limits=narrow)

    assert first.rc == status_of(tmp_path / "runs")["code"] == 7, first.err
    said = first.err.splitlines()[-1]
    assert said.startswith("dpo: error[7] ") and ": out of memory at " in said
    assert "rows.jsonl:" in said and "train.max_tokens_per_micro_batch=" in said

    less = "train.max_tokens_per_micro_batch=900"
    second = dpo("train", str(tiny), *overrides, less, cwd=tiny.parent, limits=narrow)
    assert second.rc == 0, second.err
    assert "continuing the unfinished run" in second.err


def cold(tiny: Path, output: Path, *before: str, **options: Any) -> subprocess.Popen[str]:
    """Start `dpo train` as a user does."""
    command = [*before, sys.executable, "-m", "dpo_cli", "train", str(tiny), f"train.output_dir={output}"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **options.pop("env", {})}
    return subprocess.Popen([*command, "--json"], cwd=tiny.parent, env=env, text=True, **options)


def test_fault_026_nobody_listens_and_training_does_not_care(
    tiny: Path, tmp_path: Path, oracle: Outcome
) -> None:
    """`dpo train | head -0` in a bare environment, with a stderr that is closed too."""
    read, write = os.pipe()
    os.close(read)
    env = {"TERM": "dumb", "LC_ALL": "C", "PYTHONUTF8": "0"}
    process = cold(tiny, tmp_path / "runs", stdout=write, stderr=write, env=env)
    os.close(write)

    assert process.wait(170) == 0
    assert outcome(only_run(tmp_path / "runs")) == oracle


def test_fault_092_without_a_network_everything_works(tiny: Path, tmp_path: Path, oracle: Outcome) -> None:
    if subprocess.run(["unshare", "-rn", "true"], capture_output=True, check=False).returncode:
        pytest.skip("no user namespaces here")
    offline = {"HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "0", "HF_DATASETS_OFFLINE": "0"}
    process = cold(
        tiny,
        tmp_path / "runs",
        "unshare",
        "-rn",
        env=offline,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    _, said = process.communicate(timeout=starts(150))

    assert process.returncode == 0, said
    assert outcome(only_run(tmp_path / "runs")) == oracle


TOKENS = {"HF_TOKEN": "hf_" + "AbCdEfGh" * 4, "WANDB_API_KEY": "0123456789abcdef" * 2 + "01234567"}


def test_fault_099_credentials_of_the_environment_are_written_nowhere(
    dpo: Dpo, tiny: Path, tmp_path: Path
) -> None:
    """In a run that W&B records and that then dies of a bug of ours."""
    overrides = ["log.trackers=[wandb]", "log.wandb.mode=offline", f"train.output_dir={tmp_path / 'runs'}"]
    at = [("dpo_cli.train.run.save_model", 1, "EDOM")]
    done = dpo("train", str(tiny), *overrides, cwd=tiny.parent, at=at, env=TOKENS)

    assert done.rc == 1 and "Traceback" in done.err
    assert list(only_run(tmp_path / "runs").glob("wandb/offline-run-*/*.wandb"))
    for secret in TOKENS.values():
        assert secret not in done.err
        holding = [
            p for p in (tmp_path / "runs").rglob("*") if p.is_file() and secret.encode() in p.read_bytes()
        ]
        assert not holding


def test_fault_099_a_credential_in_a_recipe_is_refused_and_not_repeated(
    dpo: Dpo, tiny: Path, tmp_path: Path
) -> None:
    token = TOKENS["HF_TOKEN"]
    done = dpo("train", str(tiny), f"data.system=my token is {token}", cwd=tmp_path)

    assert done.rc == 2
    assert "'data.system' holds what looks like an access token" in done.err
    assert token not in done.err and not list(tmp_path.iterdir())
