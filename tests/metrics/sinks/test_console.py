import io
import os
import re
import subprocess
import sys

import pytest
from rich.console import Console

from dpo_cli.metrics.sinks import RunInfo
from dpo_cli.metrics.sinks.console import ConsoleSink, plain_lines, sparkline
from dpo_cli.metrics.sinks.jsonl import JsonlSink
from tests.patience import starts

TRAIN = {
    "train/loss": 0.523,
    "train/rewards/accuracies": 0.742,
    "train/rewards/margins": 0.611,
    "train/rewards/chosen": -0.21,
    "train/logps/chosen": -287.1,
    "train/grad_norm": 11.3,
    "train/learning_rate": 2.1e-7,
    "optim/clipped_frac": 0.09,
    "perf/tokens_per_sec": 41200.0,
    "perf/pad_frac": 0.03,
    "perf/peak_mem_gib": 61.4,
    "perf/eta_s": 1213.0,
}
EVAL = {
    "eval/loss": 0.548,
    "eval/rewards/accuracies": 0.718,
    "eval/rewards/accuracies_ci_lo": 0.698,
    "eval/rewards/accuracies_ci_hi": 0.738,
}


def _shown(width, tmp_path, terminal=True, environ=None):
    """What a short run leaves on the screen, and the last frame as text."""
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=width, _environ=environ or {})
    sink = ConsoleSink(console, clock=lambda: 0.0)
    sink.start(RunInfo("my-run", tmp_path, steps=954))
    for step in range(10, 650, 10):
        sink.advance(step)
        sink.write(step, {**TRAIN, "train/loss": 0.69 - step / 4000} | (EVAL if step == 600 else {}))
    frame = io.StringIO()
    if terminal:
        Console(file=frame, width=width, _environ={}).print(sink.render())
    sink.close()
    return file.getvalue(), frame.getvalue()


def test_a_wide_terminal_shows_all_five_columns_within_its_width(tmp_path):
    screen, frame = _shown(96, tmp_path)
    for text in (
        "my-run · step 640",
        "640/954",
        "67%",
        "0:20:13",
        "eval@600",
        "0.698 .. 0.738",
        "last 16 logs",
        "█▇",
        "0.742",
    ):
        assert text in frame
    assert "41.2k tok/s · pad 3% · peak 61.4 GiB · lr 2.1e-7 · clipped 9%" in frame
    assert {len(line) for line in frame.splitlines()} == {96}
    assert "640/954" in screen  # the last state stays


@pytest.mark.parametrize(("width", "has_ci"), [(70, True), (60, False)])
def test_a_narrow_terminal_loses_the_sparkline_then_the_interval(width, has_ci, tmp_path):
    _, frame = _shown(width, tmp_path)
    assert "last 16 logs" not in frame
    assert ("0.698 .. 0.738" in frame) == has_ci
    assert "rewards/accuracies" in frame
    assert all(len(line) <= width for line in frame.splitlines())


@pytest.mark.parametrize("environ", [{}, {"TERM": "dumb"}])
def test_without_a_terminal_each_logged_step_is_one_plain_line(environ, tmp_path):
    text, _ = _shown(40, tmp_path, terminal=False, environ=environ)
    lines = text.splitlines()
    assert (
        lines[0]
        == "step=10/954 loss=0.688 acc=0.742 margin=0.611 gnorm=11.3 lr=2.1e-7 tok/s=41200 eta=0:20:13"
    )
    assert "eval step=600/954 loss=0.548 acc=0.718 acc_ci=0.698..0.738" in lines
    assert len(lines) == 65
    assert "\x1b" not in text and "\r" not in text


def test_a_dumb_terminal_gets_plain_lines(tmp_path):
    file = io.StringIO()
    sink = ConsoleSink(Console(file=file, force_terminal=True, width=96, _environ={"TERM": "dumb"}))
    sink.start(RunInfo("run", tmp_path, steps=10))
    sink.write(10, {"train/loss": 0.5})
    sink.close()
    assert file.getvalue() == "step=10/10 loss=0.5\n"


def test_no_color_leaves_no_colour(tmp_path):
    screen, _ = _shown(96, tmp_path, environ={"NO_COLOR": "1"})
    codes = {code for match in re.findall(r"\x1b\[([\d;]*)m", screen) for code in match.split(";")}
    assert not {code for code in codes if code.startswith(("3", "9", "4")) and len(code) == 2}


def test_a_note_is_printed_once_in_a_log(tmp_path):
    file = io.StringIO()
    sink = ConsoleSink(Console(file=file, width=96, _environ={}))
    sink.start(RunInfo("run", tmp_path, steps=1000))
    for step in (10, 20, 30):
        sink.write(step, {"train/rewards/margins": 1.5})
    sink.close()
    assert file.getvalue().count("note: margin past 1 early") == 1


def test_a_resumed_run_goes_on_with_its_curves(tmp_path):
    log = JsonlSink()
    log.start(RunInfo("run", tmp_path, steps=100))
    for step in (10, 20, 30):
        log.write(step, {"train/loss": 1.0 - step / 100})
    log.close()
    sink = ConsoleSink(Console(file=io.StringIO(), force_terminal=True, width=96, _environ={}))
    sink.start(RunInfo("run", tmp_path, steps=100, first_step=20, attempt=1))
    frame = io.StringIO()
    Console(file=frame, width=96, _environ={}).print(sink.render())
    sink.close()
    assert "20/100" in frame.getvalue() and "█▁" in frame.getvalue() and "0.8000" in frame.getvalue()


def test_values_that_a_method_does_not_have_are_left_out():
    assert plain_lines(5, 10, {"train/loss": 0.5, "train/kl": 3.0}) == ["step=5/10 loss=0.5"]
    assert plain_lines(5, 10, {"perf/pad_frac": 0.5}) == []


def test_sparklines_span_the_last_logs_and_survive_nan():
    assert sparkline([0.0, 1.0]) == "▁█"
    assert sparkline([2.0, 2.0]) == "▁▁"
    assert sparkline([0.0, float("nan"), 1.0]) == "▁█"
    assert sparkline([9.0] + [0.0] * 16) == "▁" * 16
    assert sparkline([]) == ""


_WRITER = """
import sys
from pathlib import Path
from dpo_cli.metrics.sinks import RunInfo
from dpo_cli.metrics.sinks.console import ConsoleSink
sink = ConsoleSink()
sink.start(RunInfo("rün", Path("."), steps=3000))
for step in range(3000):
    sink.write(step, {"train/loss": 0.5, "train/rewards/margins": 2.0})
    if step == 1500 and len(sys.argv) > 1:
        sys.stderr.close()
sink.close()
Path(sys.argv[-1]).write_text("done")
"""


@pytest.mark.parametrize("how", ["pipe", "closed"])
def test_fault_026_a_closed_stderr_costs_text_and_nothing_else(how, tmp_path):
    done = tmp_path / "done"
    arguments = [str(done)] if how == "pipe" else ["close", str(done)]
    environ = {**os.environ, "LC_ALL": "C", "TERM": "dumb"}
    process = subprocess.Popen(
        [sys.executable, "-c", _WRITER, *arguments], stderr=subprocess.PIPE, env=environ
    )
    assert process.stderr is not None
    first = process.stderr.readline()
    if how == "pipe":
        process.stderr.close()
    else:
        process.stderr.read()
        process.stderr.close()
    assert first == b"step=0/3000 loss=0.5 margin=2\n"
    assert process.wait(timeout=starts(60)) in (0, 120)  # 120: Python itself could not flush stderr at exit
    assert done.read_text() == "done"
