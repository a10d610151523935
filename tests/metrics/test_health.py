import pytest

from dpo_cli.metrics.health import Facts, notes


def _rows(steps, **series):
    names = {
        "margin": "train/rewards/margins",
        "chosen": "train/logratio/chosen",
        "rejected": "train/logratio/rejected",
    }
    names |= {"norm": "train/grad_norm", "lr": "train/learning_rate", "length": "train/lengths/chosen"}
    return [{"step": step, **{names[key]: value(step) for key, value in series.items()}} for step in steps]


STEPS = range(10, 1001, 10)


def test_a_healthy_run_has_no_notes():
    assert (
        notes(
            _rows(STEPS, margin=lambda s: s / 1000, chosen=lambda s: s / 500, rejected=lambda s: -s / 500),
            1000,
        )
        == []
    )
    assert notes([], 1000) == []


def test_a_margin_of_zero_is_no_news_in_a_young_run():
    assert notes(_rows(range(10, 191, 10), margin=lambda s: 0.0), 1000) == []


@pytest.mark.parametrize(
    ("series", "action"),
    [
        ({"norm": lambda s: 0.0}, "weights are not frozen"),
        ({"norm": lambda s: 8.0, "chosen": lambda s: 0.02, "lr": lambda s: 5e-8}, "raise optim.lr"),
        (
            {"norm": lambda s: 8.0, "chosen": lambda s: -3.0, "rejected": lambda s: -3.0},
            "check that the reference",
        ),
    ],
)
def test_a_stuck_margin_is_explained_by_the_evidence(series, action):
    note = notes(_rows(STEPS, margin=lambda s: 0.001, **series), 1000)[0]
    assert note.what == "margin stuck near 0"
    assert "+0.0010 after 1000 steps" in note.evidence
    assert action in note.action


def test_a_margin_past_one_is_an_alarm_only_early():
    early = notes(_rows(STEPS, margin=lambda s: s / 50), 1000)
    assert [note.what for note in early] == ["margin past 1 early"]
    assert "+1.20 at step 60 of 1000" in early[0].evidence
    assert "raise method.beta" in early[0].action  # a larger beta keeps the policy closer
    assert notes(_rows(STEPS, margin=lambda s: s / 100), 1000) == []


def test_a_margin_that_starts_elsewhere_is_judged_by_its_change():
    odds = Facts("orpo", beta=5, starts_at_zero=False)
    assert notes(_rows(STEPS, margin=lambda s: 2.86 + s / 1000), 1000, odds) == []
    (note,) = notes(_rows(STEPS, margin=lambda s: 2.86 + s / 50), 1000, odds)
    assert (note.what, note.evidence) == ("margin past 1 early", "+4.26 at step 70 of 1000, +3.06 at first")


def test_falling_log_probs_are_called_usual_with_their_size():
    usual = notes(_rows(STEPS, margin=lambda s: 0.5, chosen=lambda s: -2.1, rejected=lambda s: -7.6), 1000)[0]
    assert "-2.1" in usual.evidence and "-7.6" in usual.evidence
    assert "usual" in usual.action
    wrong = notes(_rows(STEPS, margin=lambda s: -0.5, chosen=lambda s: -7.6, rejected=lambda s: -2.1), 1000)[
        0
    ]
    assert "swapped" in wrong.action
    strong = notes(
        _rows(
            STEPS,
            margin=lambda s: 0.5,
            chosen=lambda s: -40.0,
            rejected=lambda s: -90.0,
            length=lambda s: 100.0,
        ),
        1000,
    )[0]
    assert "-0.40 a chosen token" in strong.evidence


@pytest.mark.parametrize(
    ("accuracy", "longer", "told"), [(0.58, 0.61, True), (0.70, 0.61, False), (0.50, 0.52, False)]
)
def test_an_accuracy_that_length_explains_is_named(accuracy, longer, told):
    rows = [{"step": 100, "eval/rewards/accuracies": accuracy, "eval/longer_wins": longer}]
    assert [note.what for note in notes(rows, 1000)] == ["length explains the accuracy"] * told


def test_the_pressing_note_comes_first():
    rows = _rows(STEPS, margin=lambda s: 2.0, chosen=lambda s: -2.0, rejected=lambda s: -22.0)
    rows[-1] |= {"eval/rewards/accuracies": 0.6, "eval/longer_wins": 0.65}
    assert [note.what for note in notes(rows, 1000)] == [
        "margin past 1 early",
        "length explains the accuracy",
        "both log-probs fall while the margin rises",
    ]


def _whats(rows, steps=1000):
    return [note.what for note in notes(rows, steps)]


def test_a_spike_needs_logs_before_it_and_a_step_that_was_clipped():
    calm = [{"step": step, "train/grad_norm": 1.0 + step % 3 / 10} for step in range(1, 9)]
    spike = {"step": 9, "train/grad_norm": 40.0, "train/loss": 2.0}
    assert "1.1 is usual" in notes([*calm, spike], 1000)[0].evidence
    assert _whats([*calm[:4], spike]) == []
    assert _whats([*calm, {**spike, "optim/clipped_frac": 0.0}]) == []
    after = [{"step": step, "train/grad_norm": 1.0} for step in range(10, 15)]
    assert _whats([*calm, spike, *after[:4]]) == ["gradient spike"]
    assert _whats([*calm, spike, *after]) == []


@pytest.mark.parametrize(
    ("accuracies", "told"),
    [
        ([0.51, 0.49, 0.50, 0.52], True),
        ([0.56, 0.57, 0.55, 0.56], False),  # little, but more than a coin's
        ([0.75, 0.25, 0.50, 0.625], True),  # a batch of 8 a log: 0.53 is within its noise
        ([0.0, 1.0, 0.0, 1.0], False),  # a batch of one: says nothing yet
        ([0.44, 0.43, 0.45, 0.44], False),
    ],
)
def test_an_accuracy_is_a_coins_within_its_noise(accuracies, told):
    rows = [
        {"step": 10 * i, "train/rewards/accuracies": accuracies[i % 4], "train/rewards/margins": 0.1}
        for i in range(30)
    ]
    assert _whats(rows) == ["accuracy stuck at 0.5"] * told
    assert _whats(rows[:15]) == []  # young
    clear = {"eval/rewards/accuracies_ci_lo": 0.69, "eval/rewards/accuracies_ci_hi": 0.87}
    assert _whats([*rows[:-1], rows[-1] | clear]) == []  # what is held out tells more
    assert _whats([{**row, "train/rewards/margins": 0.0} for row in rows]) == ["margin stuck near 0"]


@pytest.mark.parametrize(
    ("low", "high", "told"), [(0.46, 0.55, True), (0.51, 0.60, False), (0.3, 0.7, False)]
)
def test_a_held_out_accuracy_is_a_coins_where_its_interval_is_narrow_and_holds_one_half(low, high, told):
    rows = [
        {"step": 10 * i, "train/rewards/accuracies": 0.9, "train/rewards/margins": 0.4} for i in range(30)
    ]
    rows[-1] |= {"eval/rewards/accuracies_ci_lo": low, "eval/rewards/accuracies_ci_hi": high}
    assert ("held-out accuracy stuck at 0.5" in _whats(rows)) == told


QUICKSTART = """\
 1 0.000 0.000 9.31 +0.00 +0.00
 2 0.017 0.812 8.17 -0.14 -0.31
 3 0.073 0.812 7.88 -0.30 -1.02
 4 0.158 0.875 7.51 +0.04 -1.54
 5 0.236 1.000 6.97 +0.55 -1.81
 6 0.232 0.812 7.01 +0.28 -2.04
 7 0.340 1.000 6.77 -0.01 -3.41
 8 0.369 0.688 6.61 +0.10 -3.58
 9 0.609 0.938 6.99 +0.47 -5.61
10 0.508 1.000 6.55 -0.48 -5.56
11 0.395 0.750 7.49 -0.68 -4.63
12 0.581 0.938 6.12 +0.63 -5.18
13 0.658 0.875 6.76 +0.56 -6.01
14 0.952 0.875 5.64 +0.43 -9.08
15 0.946 0.938 5.36 +2.55 -6.91
16 0.714 0.750 7.52 -0.08 -7.22
17 0.985 0.938 6.04 +1.37 -8.48
18 0.970 0.938 6.19 +1.05 -8.65
19 0.937 1.000 5.78 -0.18 -9.56
20 1.474 1.000 4.00 +1.75 -12.99
21 1.896 1.000 3.76 +4.04 -14.92
22 1.778 1.000 3.80 +4.21 -13.56
23 1.629 1.000 3.41 +4.04 -12.25
24 1.902 1.000 3.03 +3.35 -15.68
25 2.193 1.000 2.45 +3.43 -18.49
26 2.326 1.000 3.60 +2.69 -20.58
27 2.024 1.000 3.47 +3.19 -17.05
28 1.774 0.938 3.81 +2.59 -15.14
29 1.923 1.000 3.17 +1.07 -18.15
"""
"""Logged by a real run of recipes/quickstart.yaml: step, margin, accuracy, gradient norm, log-ratios of chosen and rejected."""


def test_the_quickstart_run_is_told_nothing_at_any_step():
    names = ["step", *(f"train/{name}" for name in ("rewards/margins", "rewards/accuracies", "grad_norm"))]
    names += ["train/logratio/chosen", "train/logratio/rejected"]
    rows = [dict(zip(names, map(float, line.split()), strict=True)) for line in QUICKSTART.splitlines()]
    for row in rows:
        row |= {"optim/clipped_frac": 1.0, "train/lengths/chosen": 20.0, "train/learning_rate": 1e-5}
    held = {"eval/rewards/accuracies": 0.925, "eval/longer_wins": 0.519}
    held |= {"eval/rewards/accuracies_ci_lo": 0.863, "eval/rewards/accuracies_ci_hi": 0.975}
    rows[-1] |= held
    facts = Facts("dpo", beta=0.1, batch_size=16, clip_norm=1.0)

    assert [notes(rows[:n], 29, facts) for n in range(1, 30)] == [[]] * 29
