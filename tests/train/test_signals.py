"""Signals become wishes: raised where nothing must be finished, kept where something must."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from dpo_cli.errors import Stopped
from dpo_cli.train.signals import Wish, is_launched, listening


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_stop_is_raised_at_once_where_nothing_must_be_finished(number: signal.Signals) -> None:
    with listening(), pytest.raises(Stopped) as caught:
        send(number)
        raise AssertionError("the signal was not taken")

    assert (caught.value.by, caught.value.code) == (number.name, 75)


def test_a_stop_is_kept_in_a_held_block_and_raised_behind_it(capfd: pytest.CaptureFixture[str]) -> None:
    reached = []
    with listening() as signals, pytest.raises(Stopped), signals.held():
        send(signal.SIGTERM)
        reached.append(signals.wish)

    assert reached == [Wish.STOP]
    assert capfd.readouterr().err == "SIGTERM: finishing this step, then saving\n"


def test_a_released_part_of_a_held_block_can_be_stopped() -> None:
    with listening() as signals, pytest.raises(Stopped), signals.held():
        with pytest.raises(Stopped), signals.released():
            send(signal.SIGTERM)
            raise AssertionError("the signal was not taken")
        assert signals.wish is Wish.STOP


def test_a_stop_that_came_before_a_released_part_ends_it() -> None:
    with listening() as signals, pytest.raises(Stopped), signals.held():
        send(signal.SIGHUP)
        with pytest.raises(Stopped), signals.released():
            raise AssertionError("not reached")


def test_cleaning_up_is_not_interrupted_again() -> None:
    reached = False
    with listening(), pytest.raises(Stopped):
        try:
            send(signal.SIGTERM)
        finally:
            send(signal.SIGTERM)
            reached = True

    assert reached


def test_sigusr1_asks_for_a_checkpoint_until_it_is_served() -> None:
    with listening() as signals:
        send(signal.SIGUSR1)
        assert signals.wish is Wish.SAVE
        signals.served()
        assert signals.wish is Wish.NONE


def test_the_handlers_of_before_come_back_and_an_ignored_hangup_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with listening() as signals:
            send(signal.SIGHUP)
            assert signals.wish is Wish.NONE
            assert signal.getsignal(signal.SIGTERM) == signals.on_signal
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_no_broad_except_swallows_a_stop() -> None:
    with listening(), pytest.raises(Stopped):
        try:
            send(signal.SIGTERM)
        except Exception as error:
            raise AssertionError from error


def test_outside_the_main_thread_nothing_is_taken() -> None:
    found = []

    def work() -> None:
        with listening() as signals:
            found.append((signal.getsignal(signal.SIGTERM), signals.wish))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    assert found == [(signal.SIG_DFL, Wish.NONE)]


@pytest.mark.parametrize(
    ("environment", "expected"),
    [({}, False), ({"LOCAL_RANK": "0"}, True), ({"ACCELERATE_DYNAMO_BACKEND": "no"}, True)],
)
def test_only_under_a_launcher_a_process_follows_its_parent(
    environment: dict[str, str], expected: bool
) -> None:
    assert is_launched(environment) is expected
