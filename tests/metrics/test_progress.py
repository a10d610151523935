import io

from rich.console import Console

from dpo_cli.metrics.progress import duration, progress


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def _plain():
    file = io.StringIO()
    return file, Console(file=file, width=60, _environ={})


def test_short_work_is_silent_without_a_terminal():
    file, console = _plain()
    clock = Clock()
    with progress("encoding", 4, console, clock) as advance:
        for _ in range(4):
            clock.now += 0.4
            advance(1)
    assert file.getvalue() == ""


def test_long_work_gives_a_plain_line_every_five_seconds_and_one_at_the_end():
    file, console = _plain()
    clock = Clock()
    with progress("reference log-probs", 1200, console, clock) as advance:
        for _ in range(12):
            clock.now += 1
            advance(100)
    assert file.getvalue().splitlines() == [
        "reference log-probs: 500/1,200 100/s eta=0:00:07",
        "reference log-probs: 1,000/1,200 100/s eta=0:00:02",
        "reference log-probs: 1,200 in 0:00:12",
    ]


def test_work_of_unknown_size_shows_its_time():
    file, console = _plain()
    clock = Clock()
    with progress("loading model", None, console, clock) as advance:
        clock.now += 6
        advance(1)
    assert file.getvalue().splitlines() == ["loading model: 1 after 0:00:06", "loading model: 0:00:06"]


def test_a_terminal_gets_a_bar_that_leaves_one_line():
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=80, _environ={})
    clock = Clock()
    with progress("encoding", 3, console, clock) as advance:
        clock.now += 3
        advance(3)
    assert " 1/s " in file.getvalue()
    assert file.getvalue().splitlines()[-1].endswith("encoding: 3 in 0:00:03")


def test_durations_are_hours_minutes_seconds():
    assert [duration(s) for s in (0.4, 61, 3723)] == ["0:00:00", "0:01:01", "1:02:03"]
