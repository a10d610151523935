"""The command `dpo`: which commands there are, and how an error ends the process. Imports nothing heavy."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import Annotated

import typer

from dpo_cli import __version__
from dpo_cli.cli.about.env import env
from dpo_cli.cli.about.explain import explain
from dpo_cli.cli.arguments import examples
from dpo_cli.cli.data.audit import audit
from dpo_cli.cli.data.check import check
from dpo_cli.cli.data.formats import formats
from dpo_cli.cli.data.init import init
from dpo_cli.cli.data.peek import peek
from dpo_cli.cli.evaluate.compare import compare
from dpo_cli.cli.evaluate.eval import evaluate
from dpo_cli.cli.evaluate.ledger import ledger
from dpo_cli.cli.evaluate.score import score
from dpo_cli.cli.groups import ByFolder
from dpo_cli.cli.models.convert import convert
from dpo_cli.cli.models.export import export
from dpo_cli.cli.models.fetch import fetch
from dpo_cli.cli.reference import cache
from dpo_cli.cli.reference.precompute import precompute_ref
from dpo_cli.cli.samples.chat import chat
from dpo_cli.cli.samples.judge import judge
from dpo_cli.cli.samples.pairs import pairs
from dpo_cli.cli.samples.sample import sample
from dpo_cli.cli.train import recipes
from dpo_cli.cli.train.plan import plan
from dpo_cli.cli.train.report import report
from dpo_cli.cli.train.runs import runs
from dpo_cli.cli.train.train import train
from dpo_cli.errors import RecipeError, Stopped, UserError

EXIT_CODES = (
    "Exit codes: 0 done; 1 a bug of ours; 2 recipe or usage; 3 data; 4 model or tokenizer; 5 disk, checkpoint or reference store;"
    " 6 numbers that are not finite; 7 out of memory, or a plan that does not fit; 8 ranks; 9 audit found faults, or check is not OK;"
    " 10 verdicts are missing; 75 stopped, the same command goes on; 130 Ctrl-C twice."
)

app = typer.Typer(
    name="dpo",
    cls=ByFolder,
    help="Align language models from preference data, driven by YAML recipes.",
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help: rich alone takes longer to import than everything else
    pretty_exceptions_enable=False,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples(
        "dpo init votes.csv --model org/model     from your rows to votes.yaml",
        "dpo check votes.yaml                     what it would train on",
        "dpo train votes.yaml                     train, measure, save",
    )
    + "\n\n"
    + EXIT_CODES,
)
# In the order of a day's work, which is the order of `dpo --help`.
app.command(
    short_help="Write a recipe for data files and a model.",
    epilog=examples(
        "dpo init votes.csv --model org/model",
        "dpo init rated.csv --model org/model --column prompt=question --label tie=0",
    ),
)(init)
app.command(short_help="Check everything short of loading weights.", epilog=examples("dpo check votes.yaml"))(
    check
)
app.command(
    short_help="Print rows token by token, as they are scored.",
    epilog=examples("dpo peek votes.yaml", "dpo peek votes.csv --model org/model --row votes.csv:17"),
)(peek)
app.command(
    short_help="Find what is wrong with preference data.",
    epilog=examples("dpo audit votes.csv --heldout test.csv --write clean.jsonl", "dpo audit votes.yaml"),
)(audit)
app.command(
    short_help="List the formats of rows and who has them.",
    epilog=examples("dpo formats", "dpo formats winner", "dpo formats berkeley-nest/Nectar"),
)(formats)
app.command(
    short_help="Say what memory, time and disk a run takes.",
    epilog=examples("dpo plan votes.yaml", "dpo plan llama8b_dpo_lora --gpu rtx4090 --price 0.4"),
)(plan)
app.command(
    short_help="Train, measure and save a model as a recipe says.",
    epilog=examples(
        "dpo train votes.yaml",
        "dpo train votes.yaml optim.lr=1e-6 train.seed=1",
        "dpo train votes.yaml 'model.adapter={rank: 16}' optim.lr=1e-4",
    ),
)(train)
app.command(short_help="List runs: state, time left, accuracy, exit code.")(runs)
app.command(short_help="Write a run's page again.")(report)
app.command(
    short_help="Show pairs that look mislabelled, hard or forgotten.",
    epilog=examples(
        "dpo train votes.yaml train.ledger=true",
        "dpo ledger runs/votes-1a2b3c4d",
        "dpo train votes.yaml data.drop=runs/votes-1a2b3c4d/ledger/suspects.jsonl",
    ),
)(ledger)
app.command(
    "eval",
    short_help="Measure a model on held-out pairs.",
    epilog=examples(
        "dpo eval runs/a --split test",
        "dpo eval org/model reference.model=org/base 'data.eval=[{path: a.jsonl}]'",
    ),
)(evaluate)
app.command(
    short_help="Compare models and recipes on the same rows.",
    epilog=examples(
        "dpo compare runs/a runs/b",
        "dpo compare runs/a runs/b runs/c runs/d --group dpo=a,b --group ipo=c,d",
    ),
)(compare)
app.command(
    short_help="Score completions by their implicit reward.",
    epilog=examples(
        "dpo score runs/a prompts.jsonl --best --out best.jsonl",
        "dpo score org/model prompts.jsonl --reference org/base",
    ),
)(score)
app.command(
    short_help="Sample answers from a model and its reference.",
    epilog=examples(
        "dpo sample runs/a --temperature 0,0.7,1 --n 4",
        "dpo sample org/model --reference org/base --data prompts.jsonl",
    ),
)(sample)
app.command(
    short_help="Judge sampled answers: win rates.",
    epilog=examples(
        "dpo judge runs/a/samples.jsonl --judge runs/my_reward",
        "dpo judge runs/a/samples.jsonl --judge https://host/v1 --judge-model name",
    ),
)(judge)
app.command(
    short_help="Make preference pairs of sampled answers.",
    epilog=examples("dpo pairs runs/a/samples.jsonl --judge runs/my_reward --min-gap 0.5"),
)(pairs)
app.command(short_help="Talk to a trained model.", epilog=examples("dpo chat runs/a --against reference"))(
    chat
)
app.command(
    short_help="Write a model for servers and benchmarks.",
    epilog=examples("dpo export runs/a --to vllm --out my_model"),
)(export)
app.command(short_help="Write pickled weights as safetensors.")(convert)
app.command(short_help="Download what a recipe names, for a job without network.")(fetch)
app.command(short_help="Score a recipe's rows with its reference, for all runs.")(precompute_ref)
app.add_typer(cache.app, name="cache", short_help="List, verify, clean and exchange reference log-probs.")
app.add_typer(recipes.app, name="recipes", short_help="List, show and copy recipes.")
app.command(
    short_help="Say what a key or a logged name means; show a loss.",
    epilog=examples(
        "dpo explain optim.lr",
        "dpo explain eval/rewards/accuracies",
        "dpo explain loss method.name=ipo --svg ipo.svg",
    ),
)(explain)
app.command(short_help="Describe this machine for a bug report.")(env)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"dpo-cli {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[
        bool,
        typer.Option(
            "--debug",
            envvar="DPO_DEBUG",
            help="Show the traceback of an error; may stand anywhere on the line.",
        ),
    ] = False,
    plugin: Annotated[
        str | None,
        typer.Option(
            metavar="PACKAGE", help="Allow methods of this package; may stand anywhere on the line."
        ),
    ] = None,
) -> None:
    """Align language models from preference data, driven by YAML recipes."""


def main() -> None:
    """Run the command line; a user's mistake ends with a line a problem on stderr and the error's exit code."""
    if "--debug" in sys.argv[1:]:
        os.environ["DPO_DEBUG"] = "1"
        sys.argv[1:] = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        _allow_plugins(sys.argv)
        app()
    except UserError as error:
        if os.environ.get("DPO_DEBUG", "0") not in ("", "0"):
            raise
        _tell("\n".join(error.lines()))
        sys.exit(error.code)
    except Stopped as error:
        # A launcher asks its other workers too, one of which is on its way out already.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _tell(f"dpo: stopped[{error.code}] {error.message}" if error.message else "")
        sys.exit(error.code)
    finally:
        _flush()


def _allow_plugins(arguments: list[str]) -> None:
    """Take `--plugin PACKAGE` off the line, wherever it stands, and allow what it and the user's configuration name."""
    from dpo_cli import methods
    from dpo_cli.recipe.settings import load_settings, settings_path

    named = []
    while "--plugin" in arguments:
        at = arguments.index("--plugin")
        if at + 1 == len(arguments) or arguments[at + 1].startswith("-"):
            raise RecipeError.of("--plugin", "names no package", "--plugin my_package")
        named.append(arguments[at + 1])
        del arguments[at : at + 2]
    if settings_path().exists():
        named += load_settings().plugins
    methods.allow(named)


def _tell(text: str) -> None:
    """Print to stderr; where the terminal has hung up or the reader is gone, the exit code still says it."""
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr, end="\n" if text else "")


def _flush() -> None:
    try:
        sys.stdout.flush()
    except (
        OSError
    ):  # the reader is gone (`| head`) or the terminal; nor shall the interpreter's own last flush complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
