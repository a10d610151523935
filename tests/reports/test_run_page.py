"""`report.html`: what the page of a run says, whatever became of the run and whatever its data hold."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from dpo_cli.cli.train.report import report
from dpo_cli.errors import StorageError
from dpo_cli.metrics.sinks.jsonl import FILE_NAME as METRICS
from dpo_cli.reports.run_curves import curves_of
from dpo_cli.reports.run_page import FILE_NAME, report_at_end, write_report
from dpo_cli.reports.run_sections import SAMPLES, try_it
from dpo_cli.reports.run_verdict import verdict
from dpo_cli.runs.status import read_status
from tests.pages.checks import text_of_page
from tests.train.finished import finished_run
from tests.train.tiny_recipe import write_recipe

HOSTILE = "</div><script>fetch('https://evil.example')</script><img src=x onerror=alert(1)> {{ 7*7 }} \x00\x1b[2J\u202e\ud800"
TOKEN = "hf_" + "a" * 30


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recipe(tmp_path_factory.mktemp("report"))


@pytest.fixture
def run(recipe: Path, tmp_path: Path) -> Path:
    return finished_run(recipe, 1, f"train.output_dir={tmp_path}")


def log(run: Path, rows: list[dict[str, Any]]) -> None:
    lines = [json.dumps({"time": 1.7e9 + row["step"], "attempt": 0, **row}) for row in rows]
    (run / METRICS).write_text("\n".join(lines) + "\n")


def trained(step: int, **values: Any) -> dict[str, Any]:
    names = {"train/loss": 0.7 / step, "train/rewards/accuracies": 0.8, "train/rewards/margins": 0.05 * step}
    return {"step": step, **names, "train/grad_norm": 3.0, "train/learning_rate": 1e-5, **values}


def change(run: Path, **values: Any) -> None:
    path = run / "status.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def text_of(run: Path) -> str:
    return text_of_page(write_report(run).read_bytes())


def test_the_answer_stands_first_beside_what_needs_no_training(run: Path) -> None:
    change(
        run,
        eval={"accuracy": 0.925, "ci": [0.863, 0.975], "n": 80, "longer_wins": 0.519, "reference_wins": 0.41},
    )
    log(run, [trained(step) for step in range(1, 9)])
    text = text_of(run)

    assert (
        text.index("0.925")
        < text.index("0.863 to 0.975")
        < text.index("Health")
        < text.index("Reward margin")
    )
    assert "Better than anything that needs no training" in text and "is right in 51.9%" in text
    assert "the longer answer wins" in text and "likelier under the reference" in text
    assert "optim.lr" in text and "0.001" in text, "what is not at its default"
    assert f"dpo compare {run} ANOTHER_RUN" in text


@pytest.mark.parametrize(
    ("accuracy", "ci", "rules", "expected"),
    [
        (0.6, (0.5, 0.7), {"longer_wins": 0.55}, "Not separable from “the longer answer wins”"),
        (
            0.5,
            (0.4, 0.6),
            {"longer_wins": 0.4, "shorter_wins": 0.6},
            "No better than “the shorter answer wins”",
        ),
        (0.7, (0.6, 0.8), {}, "the best of it, a coin"),
        (0.7, None, {}, "No interval"),
        (None, None, {}, "compare this loss"),
    ],
)
def test_the_verdict_reads_the_interval_not_the_figure(
    accuracy: float | None, ci: tuple[float, float] | None, rules: dict[str, float], expected: str
) -> None:
    assert expected in verdict(accuracy, ci, rules)


def test_a_diagnosis_comes_with_evidence_and_the_next_action(run: Path) -> None:
    change(run, notes=["gradient spike: norm 50 at step 3; lower optim.lr"])
    log(
        run,
        [
            trained(step, **{"train/logratio/chosen": -9.0, "train/logratio/rejected": -3.0})
            for step in range(1, 9)
        ],
    )
    text = text_of(run)

    assert "both log-probs fall, the chosen one faster : chosen -9.0" in text
    assert "Next: lower optim.lr; check that labels are not swapped" in text
    assert "gradient spike (on the way) : norm 50 at step 3 Next: lower optim.lr" in text


def test_a_stopped_run_shows_what_is_there_and_the_command_that_goes_on(run: Path) -> None:
    change(
        run,
        state="stopped",
        code=75,
        step=4,
        eval=None,
        message="SIGTERM after step 4 of 8, saved",
        resume="dpo train r.yaml",
    )
    held = {"eval/loss": 0.6, "eval/rewards/accuracies": 0.65, "eval/longer_wins": 0.5}
    log(
        run,
        [
            trained(1),
            trained(4),
            {"step": 4, **held, "eval/rewards/accuracies_ci_lo": 0.6, "eval/rewards/accuracies_ci_hi": 0.7},
        ],
    )
    text = text_of(run)

    assert "stopped (exit code 75) : step 4 of 8; SIGTERM after step 4 of 8, saved" in text
    assert "held-out reward accuracy after step 4" in text and "0.600 to 0.700" in text
    assert text.count("dpo train r.yaml") == 2


def test_a_run_that_logged_nothing_has_a_page(run: Path) -> None:
    change(run, state="failed", code=3, eval=None, message="a bad row", step=0, steps=0)
    text = text_of(run)

    assert "failed (exit code 3) : before its first step; a bad row" in text
    assert "Nothing was logged yet." in text and "no figure" in text


def test_texts_of_data_and_models_are_only_text(run: Path) -> None:
    sample = {
        "prompt": [{"role": "user", "content": HOSTILE}],
        "chosen": HOSTILE,
        "before": HOSTILE,
        "after": HOSTILE,
    }
    (run / SAMPLES).write_text(json.dumps([sample, "no sample", {}]))
    change(run, notes=[HOSTILE], message=f"{HOSTILE} {TOKEN}", state="failed")
    log(run, [trained(1, **{f"train/{HOSTILE}": 1.0, "train/rewards/chosen": None})])
    page = write_report(run).read_bytes()
    text = text_of_page(page)

    assert "<script>fetch('https://evil.example')</script>" in text and "{{ 7*7 }}" in text
    assert "\\x1b[2J\\u202e\\ud800" in text
    assert TOKEN not in text and "[hidden]" in text


def test_a_page_stays_small(run: Path) -> None:
    sample = {name: "word " * 4_000 for name in ("prompt", "before", "after", "chosen")}
    (run / SAMPLES).write_text(json.dumps([sample] * 100))
    log(run, [trained(step, **{f"train/extra/{k}": 1.0 for k in range(9)}) for step in range(1, 2_001)])
    text = text_of(run)

    assert "88 more in samples.json" in text and "(20,000 characters)" in text
    assert (
        "2,000 logged steps are shown as 300 means" in text and "not drawn: extra/6, extra/7, extra/8" in text
    )


def test_a_page_that_would_be_too_large_drops_the_samples_first(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run / SAMPLES).write_text(json.dumps([{"prompt": "unique words"}]))
    monkeypatch.setattr("dpo_cli.reports.run_page.MAX_BYTES", 10_000)

    assert "unique words" not in (text := text_of(run)) and "would make this page too large" in text


def test_what_dpo_eval_measured_is_shown_with_its_reliability(run: Path) -> None:
    part = {"n": 10, "accuracy": 0.8, "ci": [0.6, 0.9], "margin": 0.5, "ties": 0}
    bins = [{"confidence": 0.6, "right": 0.5, "n": 4}, {"confidence": 0.9, "right": 0.95, "n": 6}]
    facts = {
        **part,
        "what": "reward accuracy",
        "ece": 0.07,
        "reliability": bins,
        "by_length": {"similar": part},
    }
    facts |= {"sets": {"one": part, "two": part}, "baselines": {"longer_wins": 0.4, "reference_mean": 0.55}}
    (run / "eval" / "eval").mkdir(parents=True)
    (run / "eval" / "eval" / "eval.json").write_text(json.dumps(facts))
    (run / "eval" / "test").mkdir()
    (run / "eval" / "test" / "eval.json").write_text("torn")
    text = text_of(run)

    assert "eval: two 10 0.800 0.600 to 0.900" in text and "ECE 0.070" in text and "similar (n = 10)" in text
    assert "the same per token" in text and "Better than anything" in text


def test_a_page_that_cannot_be_written_costs_only_the_page(
    run: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run / "samples.json").mkdir()
    monkeypatch.setattr(
        "dpo_cli.reports.run_page.commit", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left"))
    )
    with caplog.at_level(logging.WARNING, "dpo_cli"):
        report_at_end(run)

    assert "report.html is not written (StorageError" in caplog.text and not (run / FILE_NAME).exists()
    with pytest.raises(StorageError, match="No space left"):
        write_report(run)


def test_a_recipe_that_may_not_be_loaded_is_shown_as_it_is(run: Path) -> None:
    text = (run / "recipe.yaml").read_text().replace("name: dpo", "name: my_package.method")
    (run / "recipe.yaml").write_text(text)

    assert "my_package.method" in text_of(run)


def test_the_command_says_where_it_is_and_refuses_what_is_no_run(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report([run])
    assert capsys.readouterr().out == f"{run / FILE_NAME}\n"
    report([run], as_json=True)
    assert json.loads(capsys.readouterr().out) == {"reports": [str(run / FILE_NAME)]}
    with pytest.raises(StorageError, match="is no run"):
        report([tmp_path])


def test_evaluations_are_dots_with_intervals_beside_the_training_line() -> None:
    held = {
        "eval/rewards/accuracies": 0.7,
        "eval/rewards/accuracies_ci_lo": 0.6,
        "eval/rewards/accuracies_ci_hi": 0.8,
    }
    charts, _ = curves_of([{**trained(1), "eval/longer_wins": 0.3, **held}, trained(2)], clip_norm=1.0)
    accuracy = next(chart for chart in charts if chart.title == "Reward accuracy")

    assert [(each.name, each.kind, each.ends) for each in accuracy.series] == [
        ("training", "line", ()),
        ("held out", "dots", [(0.6, 0.8)]),
    ]
    assert {chart.x_range for chart in charts} == {(1.0, 2.0)}, "the steps of the run, for all"
    assert accuracy.levels == [(0.7, "shorter wins")]
    assert next(chart.levels for chart in charts if chart.title == "Gradient norm") == [
        (1.0, "clipped above")
    ]


def test_a_reward_model_is_asked_for_scores_not_to_chat(run: Path) -> None:
    assert f"dpo chat {run}" in text_of(run)
    assert try_it(run) == f"dpo chat {run} --against reference"
    (run / "model" / "config.json").write_text('{"architectures": ["LlamaForSequenceClassification"]}')

    assert f"dpo score {run} FILE" in text_of(run) and "dpo chat" not in text_of(run)
    assert try_it(run) == f"dpo score {run} FILE"


def test_a_status_that_is_lost_costs_its_facts_only(run: Path) -> None:
    (run / "status.json").write_text("{")
    log(run, [trained(1)])

    assert read_status(run) is None
    assert "no status.json that can be read" in text_of(run)
