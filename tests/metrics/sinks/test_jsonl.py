import json
import logging

from dpo_cli.metrics.sinks import RunInfo
from dpo_cli.metrics.sinks.jsonl import JsonlSink, read_metrics


def _started(run_dir, attempt=0):
    sink = JsonlSink()
    sink.start(RunInfo("run", run_dir, steps=100, attempt=attempt))
    return sink


def test_each_logged_step_is_on_disk_at_once(tmp_path):
    sink = _started(tmp_path)
    sink.write(10, {"train/loss": 0.1 + 0.2})
    row = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert row["step"] == 10 and row["attempt"] == 0 and row["time"] > 1e9
    assert row["train/loss"] == 0.1 + 0.2  # every bit
    sink.close()


def test_readers_keep_the_highest_attempt_of_a_step_and_merge_its_rows(tmp_path):
    first = _started(tmp_path)
    for step in (10, 20, 30):
        first.write(step, {"train/loss": float(step)})
    first.close()
    second = _started(tmp_path, attempt=1)
    second.write(20, {"train/loss": 0.2})
    second.write(20, {"eval/loss": 0.3})
    second.close()
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [(row["step"], row["attempt"], row["train/loss"]) for row in rows] == [
        (10, 0, 10.0),
        (20, 1, 0.2),
        (30, 0, 30.0),
    ]
    assert rows[1]["eval/loss"] == 0.3


def test_a_line_that_a_crash_cut_short_costs_only_itself(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 10, "time": 1.0, "attempt": 0, "train/loss": 1.0}\n{"step": 20, "ti')
    sink = _started(tmp_path, attempt=1)
    sink.write(20, {"train/loss": 2.0})
    sink.close()
    assert [row["train/loss"] for row in read_metrics(path)] == [1.0, 2.0]


def test_what_is_not_finite_is_still_json(tmp_path):
    sink = _started(tmp_path)
    sink.write(1, {"train/loss": float("nan"), "train/grad_norm": float("inf")})
    sink.close()
    row = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=lambda name: 1 / 0)
    assert row["train/loss"] is None and row["train/grad_norm"] is None


def test_fault_006_a_full_disk_warns_once_and_goes_on(tmp_path, caplog):
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    with caplog.at_level(logging.WARNING):
        sink = _started(tmp_path)
        for step in range(5):
            sink.write(step, {"train/loss": 1.0})
        sink.close()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "No space left" in caplog.text


def test_a_folder_that_is_gone_warns_once_and_goes_on(tmp_path, caplog):
    sink = _started(tmp_path / "gone")
    sink.write(1, {"train/loss": 1.0})
    sink.close()
    assert len(caplog.records) == 1
