import io
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from dpo_cli.reports.end_panel import Summary, panel_lines, show

SUMMARY = Summary(
    name="quickstart-1a2b3c4d",
    run_dir=Path("runs/quickstart-1a2b3c4d"),
    model_dir=Path("runs/quickstart-1a2b3c4d/model"),
    steps=954,
    train_seconds=3693.4,
    pairs_per_second=1.254,
    peak_memory_gib=4.217,
    next_command="dpo eval runs/quickstart-1a2b3c4d",
    accuracy=0.724,
    ci=(0.704, 0.744),
    n=2000,
    loss=0.5412,
    longer_wins=0.53,
    margin_trained=0.524,
    margin_saved=0.524,
    margin_bf16=0.047,
    notes=("margin shrinks in bf16 [serve in fp32]",),
    wandb_dir="runs/quickstart-1a2b3c4d/wandb/offline-run-1",
)


def test_the_result_stands_beside_its_interval_and_the_trivial_rules():
    text = "\n".join(panel_lines(SUMMARY))
    assert "held-out reward accuracy 0.724 [0.704, 0.744]   n=2,000   loss 0.5412" in text
    assert '"longer wins" 0.530   "shorter wins" 0.470' in text
    assert "as trained +0.524   as saved +0.524   as served in bf16 +0.0470" in text
    assert "wandb sync runs/quickstart-1a2b3c4d/wandb/offline-run-1" in text
    assert panel_lines(SUMMARY)[-1].split(maxsplit=1) == ["next", "dpo eval runs/quickstart-1a2b3c4d"]


def test_without_held_out_pairs_the_panel_says_so():
    blank = dict.fromkeys(
        ("accuracy", "ci", "n", "loss", "longer_wins", "margin_trained", "margin_saved", "margin_bf16")
    )
    text = "\n".join(panel_lines(replace(SUMMARY, **blank)))
    assert "nothing held out" in text
    assert "margin " not in text.replace("margin shrinks", "")


def test_a_log_gets_plain_lines_that_are_never_wrapped():
    file = io.StringIO()
    show(SUMMARY, Console(file=file, width=40, _environ={}))
    lines = file.getvalue().splitlines()
    assert lines == ["done in 1:01:33: quickstart-1a2b3c4d", *panel_lines(SUMMARY)]
    assert "[serve in fp32]" in file.getvalue()  # brackets are text, not markup


def test_a_terminal_gets_a_frame_with_everything_in_it():
    file = io.StringIO()
    show(SUMMARY, Console(file=file, force_terminal=True, width=96, _environ={"NO_COLOR": "1"}))
    text = file.getvalue()
    assert "quickstart-1a2b3c4d · done in 1:01:33" in text
    for line in panel_lines(SUMMARY):
        assert line.split(maxsplit=1)[1] in text


def test_rows_without_a_partner_have_another_figure_or_the_loss_alone():
    text = "\n".join(panel_lines(replace(SUMMARY, what="label AUC", ci=None, longer_wins=None)))
    assert "held-out label AUC 0.724   n=2,000" in text
    text = "\n".join(panel_lines(replace(SUMMARY, accuracy=None)))
    assert "held-out loss 0.5412   n=2,000" in text
