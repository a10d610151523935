"""Which method suits which rows and how much memory: every branch with its evidence."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from dpo_cli import methods
from dpo_cli.methods._advice import MOST_LINES, Advice, Rows, advise
from dpo_cli.methods._memory import Need, Size
from dpo_cli.methods.dpo import DPOConfig
from dpo_cli.methods.ipo import IPOConfig
from dpo_cli.recipe.find import shipped

GIB = 2**30
LARGE = Size(7 * 10**9, is_exact=True)
"""104.3 GiB before activations, 127 GiB with room."""


def told(rows: Rows, config: Any = None, need: Need | None = None, free: int = 0) -> list[Advice]:
    return advise(rows, config or DPOConfig(), need, free)


def line(about: str, advice: list[Advice]) -> Advice:
    (found,) = [each for each in advice if each.about == about]
    return found


@pytest.mark.parametrize(
    ("pairs", "order"),
    [
        (99, ["rows", "ipo", "dpo", "simpo, orpo", "kto, sft"]),
        (100, ["ipo", "dpo", "simpo, orpo", "kto, sft"]),
        (999, ["ipo", "dpo", "simpo, orpo", "kto, sft"]),
        (1_000, ["dpo", "ipo", "simpo, orpo", "kto, sft"]),
        (10_000, ["dpo", "simpo, orpo", "kto, sft"]),
    ],
)
def test_pairs_are_for_dpo_and_few_of_them_for_ipo_first(pairs: int, order: list[str]) -> None:
    advice = told(Rows(pairs=pairs, tokens=20))

    assert [each.about for each in advice] == order
    assert any(f"{pairs:,} pairs" in each.why for each in advice)
    assert not line("kto, sft", advice).fits


def test_very_few_rows_are_told_before_any_method() -> None:
    first = told(Rows(wanted=30, unwanted=12))[0]

    assert (first.about, first.fits) == ("rows", False)
    assert first.why.startswith("42 are very few")


@pytest.mark.parametrize(
    ("config", "tokens", "fits", "why"),
    [
        (
            IPOConfig(),
            20,
            True,
            "5 nats (1 / (2 beta), beta 0.1), 0.25 per token of these answers, within reach",
        ),
        (DPOConfig(beta=0.001), 20, True, "5 nats (1 / (2 beta), beta 0.1), 0.25 per token"),
        (
            IPOConfig(length_normalize=True),
            20,
            False,
            "5 nats (1 / (2 beta), beta 0.1) per token, out of reach; method.beta=1 asks for 0.5",
        ),
        (
            IPOConfig(beta=1.0, length_normalize=True),
            20,
            True,
            "0.5 nats (1 / (2 beta), beta 1) per token, within",
        ),
        (IPOConfig(beta=0.005), 20, False, "100 nats (1 / (2 beta), beta 0.005), 5 per token"),
        (IPOConfig(beta=0.005), 20, False, "out of reach; method.beta=0.05 asks for 0.5"),
    ],
)
def test_ipos_target_is_told_in_nats_with_whether_it_can_be_reached(
    config: Any, tokens: float, fits: bool, why: str
) -> None:
    ipo = line("ipo", told(Rows(pairs=300, tokens=tokens), config))

    assert ipo.fits == fits
    assert why in ipo.why


def test_a_beta_that_is_advised_is_within_reach() -> None:
    rows = Rows(pairs=20_000, tokens=40)
    ipo = line("ipo", told(rows, IPOConfig(beta=0.001)))
    better = float(ipo.why.partition("method.beta=")[2].split()[0])

    assert "ipo" not in [each.about for each in told(rows, IPOConfig(beta=better))]


def test_an_ipo_out_of_reach_is_no_first_choice() -> None:
    assert told(Rows(pairs=300), IPOConfig(length_normalize=True))[0].about == "dpo"


def test_labels_alone_are_for_kto() -> None:
    kto, others = told(Rows(wanted=700, unwanted=500))

    assert (kto.about, kto.fits) == ("kto", True)
    assert kto.why.startswith("700 wanted and 500 unwanted answers")
    assert others == Advice("dpo, ipo, simpo, orpo", False, "there are no pairs")


def test_prompts_that_have_both_kinds_would_make_pairs() -> None:
    assert (
        "; 40 prompts have an answer of each kind"
        in told(Rows(wanted=70, unwanted=50, prompts_with_both=40))[1].why
    )


@pytest.mark.parametrize(
    ("wanted", "unwanted", "said"),
    [
        (100, 399, None),
        (100, 400, "4 to 1: class weights balance the loss, but 100 answers are all it knows of wanted ones"),
        (
            900,
            30,
            "30 to 1: class weights balance the loss, but 30 answers are all it knows of unwanted ones",
        ),
    ],
)
def test_many_more_of_one_kind_leave_little_known_of_the_other(
    wanted: int, unwanted: int, said: str | None
) -> None:
    kto = line("kto", told(Rows(wanted=wanted, unwanted=unwanted)))

    assert ("class weights" in kto.why) == (said is not None)
    assert (said or "") in kto.why


def test_labels_of_one_kind_have_nothing_to_tell_apart() -> None:
    assert told(Rows(wanted=200)) == [
        Advice("sft", True, "all 200 answers are wanted: imitation is what they allow")
    ]
    assert told(Rows(unwanted=200)) == [
        Advice("kto", False, "all 200 answers are unwanted: nothing says what to write")
    ]


def test_pairs_beside_labels_are_weighed_by_their_counts() -> None:
    more_pairs = told(Rows(pairs=10_000, wanted=1_000, unwanted=1_000))
    more_labels = told(Rows(pairs=1_000, wanted=25_000, unwanted=25_000))

    assert [each.about for each in more_pairs] == ["dpo", "kto"]
    assert [each.about for each in more_labels] == ["kto", "dpo"]
    assert "1,000 pairs and 50,000 labelled answers" in more_labels[0].why
    assert "smollm2_polite_dpo_then_kto" in more_labels[1].why
    assert "smollm2_polite_dpo_then_kto" in shipped()


def test_answers_alone_are_for_imitation_and_pairs_beside_them_for_a_second_stage() -> None:
    assert [(each.about, each.fits) for each in told(Rows(targets=500))] == [
        ("sft", True),
        ("all others", False),
    ]
    assert [each.about for each in told(Rows(targets=500, pairs=200))] == ["sft", "dpo"]


@pytest.mark.parametrize(
    ("free", "fits", "why"),
    [
        (128, None, ""),
        (126, True, "tight: 104 GiB before activations, 126 GiB free. model.adapter={rank: 16} takes 14 GiB"),
        (105, True, "tight: "),
        (104, False, "too little: 104 GiB before activations, 104 GiB free. model.adapter="),
        (12, False, "SimPO and ORPO save nothing: with the reference in the store DPO holds one model too"),
    ],
)
def test_little_memory_is_no_reason_for_another_method(free: int, fits: bool | None, why: str) -> None:
    advice = told(Rows(pairs=5_000, tokens=20), need=Need(LARGE), free=free * GIB)

    assert (advice[-1].about == "memory") == (fits is not None)
    if fits is not None:
        assert advice[-1].fits == fits
        assert why in advice[-1].why


def test_a_live_reference_is_the_first_thing_to_let_go() -> None:
    why = told(Rows(pairs=5_000), need=Need(LARGE, is_reference_live=True), free=GIB)[-1].why

    assert why.startswith("too little: 130 GiB before activations")
    assert why.endswith("reference.source=cache takes 26 GiB less")


@pytest.mark.parametrize(
    "rows",
    [
        Rows(pairs=9),
        Rows(pairs=5_000),
        Rows(wanted=9, unwanted=50),
        Rows(pairs=50, wanted=9),
        Rows(targets=5),
    ],
)
def test_it_stays_short_and_memory_is_never_crowded_out(rows: Rows) -> None:
    advice = told(rows, need=Need(LARGE), free=GIB)

    assert 2 <= len(advice) <= MOST_LINES
    assert advice[-1].about == "memory"
    assert all(len(str(each)) < 190 for each in advice)


def test_it_names_methods_that_there_are() -> None:
    cases = [
        Rows(pairs=50),
        Rows(wanted=9, unwanted=9),
        Rows(pairs=9, wanted=9),
        Rows(targets=9),
        Rows(wanted=9),
    ]
    named = {name for rows in cases for each in told(rows) for name in each.about.split(", ")}

    assert {"dpo", "kto"} < named - {"rows", "memory", "all others"} <= set(methods.names())


def test_it_needs_no_torch() -> None:
    code = (
        "import sys\n"
        "from dpo_cli.methods._advice import Rows, advise\n"
        "advise(Rows(pairs=5), None)\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
