"""What training a model of some size holds in memory."""

from __future__ import annotations

import pytest

from dpo_cli.methods._memory import Need, Size, gib


@pytest.mark.parametrize(
    ("size", "told"),
    [
        (Size(135 * 10**6, True), "2.0 GiB, fits 8 GB"),
        (Size(500 * 10**6, True), "7.5 GiB, fits 16 GB"),
        (Size(3 * 10**9, True), "45 GiB, fits 80 GB"),
        (Size(7 * 10**9, False), "~104 GiB, 2 x 80 GB"),
        (Size(70 * 10**9, False), "~1,043 GiB, 16 x 80 GB"),
        (Size(40_000, True), "under 0.1 GiB, fits 8 GB"),
    ],
)
def test_a_need_is_told_with_what_holds_it(size: Size, told: str) -> None:
    assert str(Need(size)) == told


def test_sizes_are_short_and_say_when_they_are_guessed() -> None:
    assert [str(Size(135 * 10**6, True)), str(Size(7 * 10**9, False)), str(Size(1_235_814_400, True))] == [
        "135M",
        "~7B",
        "1.24B",
    ]
    assert [gib(n * 2**30) for n in (0.01, 2.04, 104.3)] == ["under 0.1 GiB", "2.0 GiB", "104 GiB"]


def test_a_live_reference_is_a_second_model_and_nothing_more() -> None:
    alone, beside = Need(Size(10**9, True)), Need(Size(10**9, True), is_reference_live=True)

    assert (alone.n_bytes, alone.reference_bytes) == (16 * 10**9, 0)
    assert (beside.n_bytes, beside.reference_bytes) == (20 * 10**9, 4 * 10**9)


def test_an_adapter_leaves_little_beside_the_frozen_weights() -> None:
    size = Size(8 * 10**9, True)

    assert str(Need(size, adapter_rank=16)) == "16 GiB, fits 24 GB"
    assert Need(size, adapter_rank=64).n_bytes > Need(size, adapter_rank=16).n_bytes
