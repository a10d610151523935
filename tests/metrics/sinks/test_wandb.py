"""The real client in processes of its own: it keeps settings and a service for the life of a process."""

import json
import os
import socket
import struct
import subprocess
import sys

import pytest

from tests.patience import starts

pytest.importorskip("wandb")

_RUN = """
import json, logging, os, sys, time
from pathlib import Path
from dpo_cli.metrics.sinks import RunInfo
from dpo_cli.metrics.sinks.wandb import WandbSink
logging.basicConfig(level="WARNING", format="%(message)s")
plan = json.loads(sys.argv[1])
opened = time.perf_counter()
sink = WandbSink(**plan["sink"])
sink.start(RunInfo("my-run", Path(plan["dir"]), steps=40, recipe=plan["recipe"]))
slowest = 0.0
if plan["kill"]:
    while not list(Path(plan["dir"]).glob("wandb/offline-run-*/*.wandb")):
        time.sleep(0.05)
    for task in os.listdir("/proc/self/task"):
        for pid in Path(f"/proc/self/task/{task}/children").read_text().split():
            os.kill(int(pid), 9)
for step in plan["steps"]:
    began = time.perf_counter()
    sink.write(step, {"train/loss": 1.0 / step, "eval/rewards/accuracies": 0.5})
    slowest = max(slowest, time.perf_counter() - began)
sink.close()
share = slowest / (time.perf_counter() - opened)
print(json.dumps({"slowest_share": share, "offline_dir": sink.offline_dir}))
"""

RECIPE = {"method": {"name": "dpo", "beta": 0.1}, "model": {"name": "hf_AbCdEfGhIjKlMnOp"}}


def _run(run_dir, steps, sink=None, variables=None, kill=False):
    """Log `steps` in a process of its own; what it printed and its stderr."""
    plan = {"dir": str(run_dir), "steps": steps, "sink": sink or {}, "recipe": RECIPE, "kill": kill}
    environ = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    environ |= {"WANDB_CONFIG_DIR": str(run_dir), "NETRC": str(run_dir / "no-netrc"), **(variables or {})}
    command = [sys.executable, "-c", _RUN, json.dumps(plan), "--token", "SECRET-IN-ARGV"]
    done = subprocess.run(
        command, env=environ, capture_output=True, text=True, timeout=starts(100), stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stderr
    # W&B before 0.31 says of each offline run that it resumes nothing.
    said = [line for line in done.stderr.splitlines(True) if not line.startswith("wandb: WARNING `resume`")]
    return json.loads(done.stdout), "".join(said)


def _records(run_dir):
    """The records of all offline files under a run folder, oldest file first."""
    from wandb.proto.wandb_internal_pb2 import Record

    records = []
    for path in sorted(run_dir.glob("wandb/offline-run-*/*.wandb")):
        records += [Record.FromString(data) for data in _leveldb_records(path.read_bytes())]
    return records


def _leveldb_records(data):
    """Records of a LevelDB log: 32 KiB blocks of fragments (crc, length, type), behind a seven-byte file header."""
    position, pending = 7, b""
    while position + 7 <= len(data):
        if 32768 - position % 32768 < 7:
            position += 32768 - position % 32768
            continue
        length, kind = struct.unpack_from("<HB", data, position + 4)
        pending += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last fragment
            yield pending
            pending = b""


def _history(records):
    rows = []
    for record in records:
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            rows.append(
                {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
            )
    return rows


def test_an_offline_run_holds_names_values_and_the_recipe_and_no_secret(tmp_path):
    printed, stderr = _run(tmp_path, [10, 20], {"mode": "offline", "project": "mine", "tags": ["a", "b"]})
    records = _records(tmp_path)
    rows = _history(records)
    assert [(row["train/global_step"], row["train/loss"]) for row in rows] == [(10, 0.1), (20, 0.05)]
    run = next(record.run for record in records if record.WhichOneof("record_type") == "run")
    assert (run.project, run.display_name, list(run.tags), run.job_type) == (
        "mine",
        "my-run",
        ["a", "b"],
        "train",
    )
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert config["method"] == {"name": "dpo", "beta": 0.1}
    metrics = [record.metric for record in records if record.WhichOneof("record_type") == "metric"]
    wanted = {
        "train/global_step": "",
        "*": "train/global_step",
        "eval/rewards/accuracies": "train/global_step",
        "eval/loss": "train/global_step",
    }
    steps = {metric.glob_name or metric.name: metric.step_metric for metric in metrics}
    assert wanted.items() <= steps.items()  # 0.30 adds what the pattern matched
    assert printed["offline_dir"] == str(next(tmp_path.glob("wandb/offline-run-*")))
    assert stderr == ""
    _assert_nowhere(tmp_path, ["hf_AbCdEf", "SECRET-IN-ARGV"])
    assert run.host != socket.gethostname()


def _assert_nowhere(folder, secrets):
    for path in folder.rglob("*"):
        if path.is_file():
            assert not [secret for secret in secrets if secret.encode() in path.read_bytes()], path


def test_fault_091_a_resumed_run_keeps_its_id_and_its_lower_steps(tmp_path):
    _run(tmp_path, [10, 20, 30], {"mode": "offline"})
    _run(tmp_path, [20, 30, 40], {"mode": "offline"})
    records = _records(tmp_path)
    ids = {record.run.run_id for record in records if record.WhichOneof("record_type") == "run"}
    assert ids == {(tmp_path / "wandb-id").read_text().strip()}
    assert [row["train/global_step"] for row in _history(records)] == [10, 20, 30, 20, 30, 40]


def test_variables_decide_what_the_recipe_leaves_unset(tmp_path):
    variables = {"WANDB_MODE": "offline", "WANDB_PROJECT": "theirs", "WANDB_TAGS": "x,y"}
    _run(tmp_path, [1], variables=variables)
    run = next(record.run for record in _records(tmp_path) if record.WhichOneof("record_type") == "run")
    assert (run.project, list(run.tags)) == ("theirs", ["x", "y"])


def test_without_a_login_nothing_is_asked_and_the_run_is_recorded_offline(tmp_path):
    printed, stderr = _run(tmp_path, [1])
    assert stderr.splitlines() == ["W&B has no login (`wandb login`); this run is recorded offline"]
    assert printed["offline_dir"] and len(_history(_records(tmp_path))) == 1


def test_fault_090_an_unreachable_server_warns_once_and_costs_no_step(tmp_path):
    variables = {"WANDB_API_KEY": "a" * 40, "WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_HTTP_TIMEOUT": "1"}
    printed, stderr = _run(tmp_path, [1, 2], {"mode": "online"}, variables)
    assert len(stderr.splitlines()) == 1 and "W&B cannot be reached" in stderr
    assert printed["slowest_share"] < 0.05
    assert len(_history(_records(tmp_path))) == 2
    _assert_nowhere(tmp_path, ["a" * 40])


@pytest.mark.slow
def test_fault_090_a_server_that_takes_calls_and_never_answers_costs_no_step(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        variables = {"WANDB_API_KEY": "a" * 40, "WANDB_BASE_URL": url, "WANDB_HTTP_TIMEOUT": "1"}
        printed, stderr = _run(tmp_path, [1, 2], {"mode": "online"}, variables)
    assert len(stderr.splitlines()) == 1 and "W&B" in stderr
    assert printed["slowest_share"] < 0.05


@pytest.mark.slow
def test_fault_090_a_client_that_dies_on_the_way_costs_its_curves_and_no_step(tmp_path):
    printed, stderr = _run(tmp_path, [1, 2, 3], {"mode": "offline"}, kill=True)
    assert "W&B" in stderr and "Traceback" not in stderr
    assert printed["slowest_share"] < 0.05
