"""`dpo train` from a loaded recipe to a finished run folder."""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from dpo_cli import methods
from dpo_cli.engine import rank_agreement
from dpo_cli.engine.open_model import advice
from dpo_cli.engine.runtime import Runtime
from dpo_cli.errors import Stopped
from dpo_cli.evaluate.pairs.held_out import Evaluation
from dpo_cli.metrics import terminal
from dpo_cli.metrics.scrub import scrub
from dpo_cli.metrics.sinks import Fanout, RunInfo, Sink
from dpo_cli.metrics.sinks.console import ConsoleSink
from dpo_cli.metrics.sinks.jsonl import JsonlSink
from dpo_cli.metrics.sinks.wandb import WandbSink
from dpo_cli.metrics.speed import Speed, peak_memory_gib
from dpo_cli.modeling.oom import naming_memory
from dpo_cli.recipe.load import Loaded
from dpo_cli.reference.cached import ReferenceValues
from dpo_cli.reports.end_panel import Summary, show
from dpo_cli.reports.run_page import report_at_end
from dpo_cli.reports.run_sections import try_it
from dpo_cli.runs.checkpoint import Checkpoint
from dpo_cli.runs.folder import CHECKPOINTS, Folder, choose_folder, create
from dpo_cli.runs.lock import locked
from dpo_cli.runs.status import Status
from dpo_cli.train.callbacks import EvalEvent, LogEvent, SaveEvent
from dpo_cli.train.checkpoint_writer import Saver
from dpo_cli.train.choices import lengths_of
from dpo_cli.train.finish.before_after import sample_after, sample_before, sample_lines
from dpo_cli.train.finish.best_weights import choose, selection_of
from dpo_cli.train.finish.end_notes import at_end, at_start
from dpo_cli.train.finish.finish import Measured, card_of, measure_saved, save_model
from dpo_cli.train.finish.pair_history import keep_ledger
from dpo_cli.train.fit import fit
from dpo_cli.train.nonfinite import FiniteCheck
from dpo_cli.train.optim import build_optimizer
from dpo_cli.train.pair_visits import Visits
from dpo_cli.train.record_failure import recorded
from dpo_cli.train.resume import facts_of, newest_checkpoint, pinned, restore
from dpo_cli.train.setup import Parts, build, keep_budget
from dpo_cli.train.signals import Signals, listening
from dpo_cli.train.start_check import check_start, some_of
from dpo_cli.train.state import Run


def train(loaded: Loaded, command: str) -> Status:
    """Train a recipe to the end and give the run's status.

    Args:
        loaded: the checked recipe.
        command: what was typed, for the model card and the next command.

    Raises:
        UserError: whatever cannot work; `status.json` of the run says so too.
        Stopped: a signal asked for it; the same command goes on.
    """
    command = scrub(command)
    with ExitStack() as at_end:
        signals = at_end.enter_context(listening())
        runtime = Runtime(loaded.recipe.train.precision)
        at_end.callback(runtime.close)
        rank_agreement.agree(runtime, rank_agreement.facts_of(loaded.recipe))
        folder = runtime.from_main(choose_folder(loaded) if runtime.is_main else None)
        assert folder is not None
        _say(runtime, folder.note)
        if folder.is_finished:
            return folder.status
        if runtime.is_main:
            at_end.enter_context(locked(folder.path))
            create(folder, loaded)
            at_end.callback(report_at_end, folder.path)
        rank_agreement.check_shared(runtime, folder.path)
        at_end.enter_context(recorded(runtime, folder, loaded, command, signals))
        with naming_memory(str(folder.path)):
            _run(loaded, runtime, folder, command, signals)
    return folder.status


def _run(loaded: Loaded, runtime: Runtime, folder: Folder, command: str, signals: Signals) -> None:
    recipe, status = loaded.recipe, folder.status
    method = methods.get(recipe.method.name)
    checkpoint = runtime.from_main(newest_checkpoint(folder.path) if runtime.is_main else None)
    status.resumable = checkpoint is not None
    parts = build(recipe, runtime, folder.path, checkpoint.state.get("choices") if checkpoint else None)
    parts.data.report.advice += method.advice(recipe.method, parts.data.train)
    for line in [
        *parts.data.report.warnings(),
        *advice(recipe, parts.start),
        f"method: {method.form(recipe.method)}",
        parts.choices.note,
    ]:
        _say(runtime, line)
    tracker = _tracker(parts)
    run = _assemble(parts)
    for line in restore(run, parts, checkpoint) if checkpoint else ():
        _say(runtime, line)
    first_step = run.step
    _self_test(run, parts)
    sample_before(parts)
    console, sinks = _sinks(parts, tracker)
    if console is not None:
        console.note(at_start(parts))
    sinks.start(
        RunInfo(
            folder.path.name,
            folder.path,
            run.total_steps,
            first_step,
            status.attempt,
            dataclasses.asdict(recipe),
            method.needs_reference and not parts.has_own_reference,
        )
    )
    spent_s = checkpoint.state.get("train_seconds", 0.0) if checkpoint else 0.0
    run.speed = Speed(first_step, run.total_steps, spent_s)
    status.steps, status.step = run.total_steps, first_step
    saver = _saver(parts, status, checkpoint)
    evaluation = EvalEvent(parts.evaluate, sinks, recipe.train.eval_every if parts.data.eval else 0, signals)
    finite = FiniteCheck(folder.path, recipe.train.skip_nonfinite)
    log = LogEvent(sinks, console, status, finite, recipe.log.every)
    save = SaveEvent(saver, signals, finite, recipe.train.save_every)
    run.events = [log, evaluation, save]
    run.resized = lambda budget: _take_budget(parts, saver, budget)
    with closing(sinks), recorded(runtime, folder, loaded, command, signals):
        with signals.held():
            saver.prepare(run, bool(recipe.train.save_every))
            if run.owes_eval:
                evaluation.after_step(run)
            fit(run)
            log.rest(run, first_step)
            saver.join()
        seconds, trained = run.speed.train_seconds, _evaluate(parts, run, save)
        if runtime.is_main and trained is not None:
            sinks.write(run.step, trained.as_metrics())
    status.state, status.step, status.train_seconds = "finishing", run.step, seconds
    status.pairs_per_second = _pairs_per_second(run, seconds)
    _finish(parts, run, status, trained, tracker.offline_dir if tracker else None, command)


def _tracker(parts: Parts) -> WandbSink | None:
    wandb = parts.recipe.log.wandb
    if not parts.runtime.is_main or "wandb" not in parts.recipe.log.trackers:
        return None
    return WandbSink(wandb.project, wandb.entity, wandb.mode, wandb.tags)


def _sinks(parts: Parts, tracker: WandbSink | None) -> tuple[ConsoleSink | None, Fanout]:
    """Return the console and all sinks; only the main process has some."""
    console = ConsoleSink() if parts.runtime.is_main else None
    sinks: list[Sink] = [JsonlSink(), console] if console else []
    return console, Fanout([*sinks, *([tracker] if tracker else [])])


def _take_budget(parts: Parts, saver: Saver, budget: int) -> None:
    keep_budget(parts, budget)
    saver.facts = facts_of(parts)


def _saver(parts: Parts, status: Status, checkpoint: Checkpoint | None) -> Saver:
    def committed(step: int) -> None:
        status.resumable, status.step = True, max(status.step, step)
        status.write()

    folder, keep_last = parts.run_dir / CHECKPOINTS, parts.recipe.train.keep_last
    saver = Saver(folder, keep_last, facts_of(parts), pinned(parts), committed)
    saver.step = checkpoint.step if checkpoint else None
    return saver


def _assemble(parts: Parts) -> Run:
    """Return the run with its optimizer, without events."""
    recipe, groups = parts.recipe, parts.data.train
    return Run(
        recipe=recipe,
        runtime=parts.runtime,
        scorer=parts.scorer,
        optimizer=build_optimizer(parts.scorer, recipe.optim),
        model=parts.runtime.prepare(parts.scorer),
        method=methods.get(recipe.method.name),
        groups=groups,
        mismatched=parts.data.mismatched,
        lengths=lengths_of(groups, parts.choices.path),
        reference=parts.reference,
        total_steps=parts.n_steps,
        token_budget=parts.choices.token_budget,
        events=(),
        speed=Speed(0, parts.n_steps),
        visits=Visits(parts.run_dir) if recipe.train.ledger else None,
        selection=selection_of(parts),
    )


def _self_test(run: Run, parts: Parts) -> None:
    """Check that policy and reference are one before the first step, where they should be."""
    if run.step or parts.has_own_reference or not isinstance(run.reference, ReferenceValues):
        return
    groups = [run.groups[example] for example in some_of(run.lengths, run.token_budget)]
    precision = "bf16" if "bf16" in (run.runtime.precision, parts.recipe.reference.precision) else "fp32"
    line = check_start(
        run.scorer, groups, run.reference, run.method, parts.recipe.method, precision, run.runtime.autocast
    )
    _say(run.runtime, line)


def _evaluate(parts: Parts, run: Run, save: SaveEvent) -> Evaluation | None:
    """Evaluate what was trained; a run without checkpoints of its own accord would lose all of it to a stop here."""
    try:
        return parts.evaluate() if parts.data.eval else None
    except Stopped:
        if run.runtime.world == 1:
            save.after_step(run)
        raise


def _finish(
    parts: Parts, run: Run, status: Status, trained: Evaluation | None, wandb_dir: str | None, command: str
) -> None:
    trained, status.weights = choose(parts, run.selection, trained)
    found = keep_ledger(parts) if parts.recipe.train.ledger else []
    model_dir = save_model(parts)
    samples = sample_after(parts, parts.scorer)
    # The optimizer lets go of weights and moments, or the saved model would be loaded beside them.
    run.optimizer.state.clear()
    run.optimizer.param_groups.clear()
    run.scorer.zero_grad(set_to_none=True)
    run.model = run.scorer
    measured = measure_saved(parts, trained)
    status.peak_memory_gib = peak_memory_gib()
    status.eval = None if trained is None else trained.as_dict()
    if trained is not None:
        margins = {"trained": trained.margin, "saved": measured.saved, "bf16": measured.bf16}
        status.margins = {name: value for name, value in margins.items() if value is not None}
    stopped = f" of {run.total_steps}, stopped early" if run.step < run.total_steps else ""
    status.message = f"complete at step {status.step}{stopped}"
    if not run.runtime.is_main:
        return
    for note in at_end(parts, samples, status.margins.get("trained"), measured.bf16):
        status.notes.append(str(note))
        _say(run.runtime, f"note: {note}")
    summary = _summary(parts, status, trained, measured, model_dir)
    summary = dataclasses.replace(summary, notes=(*summary.notes, *found), wandb_dir=wandb_dir)
    (model_dir / "README.md").write_text(card_of(parts, summary, trained, command))
    status.state, status.code, status.resumable = "finished", 0, False
    status.write()
    for line in sample_lines(samples):
        terminal.say(terminal.console(), line)
    show(summary)


def _summary(
    parts: Parts, status: Status, trained: Evaluation | None, measured: Measured, model_dir: Path
) -> Summary:
    figures: dict[str, Any] = {}
    if trained is not None:
        figures = {
            "accuracy": trained.accuracy,
            "ci": trained.ci,
            "n": trained.n,
            "loss": trained.loss,
            "what": trained.what,
            "longer_wins": trained.baselines and trained.baselines.longer_wins,
            "margin_trained": trained.margin,
            "margin_saved": measured.saved,
            "margin_bf16": measured.bf16,
        }
    return Summary(
        name=parts.run_dir.name,
        run_dir=parts.run_dir,
        model_dir=model_dir,
        steps=status.step,
        train_seconds=status.train_seconds,
        pairs_per_second=status.pairs_per_second or 0.0,
        peak_memory_gib=status.peak_memory_gib or 0.0,
        next_command=try_it(parts.run_dir),
        notes=tuple(note for note in (measured.note,) if note),
        weights=status.weights,
        **figures,
    )


def _pairs_per_second(run: Run, seconds: float) -> float:
    size, n = run.recipe.train.batch_size, len(run.groups)
    per_epoch = -(-n // size)
    done = sum(min(size, n - step % per_epoch * size) for step in range(run.step))
    return done / seconds if seconds > 0 else 0.0


def _say(runtime: Runtime, line: str) -> None:
    if runtime.is_main and line:
        terminal.say(terminal.console(), line)
