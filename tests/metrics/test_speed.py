import pytest

from dpo_cli.metrics.speed import Speed, peak_memory_gib


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_a_window_gives_rates_padding_and_time_left():
    clock = Clock()
    speed = Speed(step=0, steps=10, clock=clock)
    for step in (1, 2):
        clock.now += 5
        speed.add(step, pairs=20, tokens=900, padded_tokens=1000)
    values = speed.read()
    assert values["perf/pairs_per_sec"] == 4
    assert values["perf/tokens_per_sec"] == 180
    assert values["perf/pad_frac"] == pytest.approx(0.1)
    assert values["perf/eta_s"] == 40
    assert speed.read() == {}


def test_pauses_count_neither_for_the_rate_nor_for_the_time_left():
    clock = Clock()
    speed = Speed(step=0, steps=4, clock=clock)
    clock.now += 2
    speed.add(1, pairs=2, tokens=10, padded_tokens=10)
    clock.now += 50
    speed.pause(50)
    values = speed.read()
    assert values["perf/pairs_per_sec"] == 1
    assert values["perf/eta_s"] == 6
    assert speed.train_seconds == 2


def test_a_resumed_run_judges_its_pace_by_its_own_steps():
    clock = Clock()
    speed = Speed(step=90, steps=100, clock=clock)
    clock.now += 3
    speed.add(91, pairs=1, tokens=1, padded_tokens=1)
    assert speed.read()["perf/eta_s"] == 27


def test_peak_memory_is_that_of_a_python_process():
    assert 0.01 < peak_memory_gib() < 100


def test_a_resumed_run_has_trained_for_what_it_trained_before_too():
    clock = Clock()
    speed = Speed(step=90, steps=100, spent_s=600.0, clock=clock)
    clock.now += 5
    speed.add(91, pairs=2, tokens=10, padded_tokens=10)
    assert speed.train_seconds == 605
    assert speed.read()["perf/eta_s"] == 45, "at the pace of this process"
