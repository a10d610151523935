"""The command `dpo`: which commands there are, and how an error ends the process. Imports nothing heavy."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import Annotated

import typer

from dpo_cli import __version__
from dpo_cli.cli import cache, recipes
from dpo_cli.cli.audit import audit
from dpo_cli.cli.chat import chat
from dpo_cli.cli.check import check
from dpo_cli.cli.compare import compare
from dpo_cli.cli.convert import convert
from dpo_cli.cli.env import env
from dpo_cli.cli.eval import evaluate
from dpo_cli.cli.explain import explain
from dpo_cli.cli.export import export
from dpo_cli.cli.fetch import fetch
from dpo_cli.cli.init import init
from dpo_cli.cli.judge import judge
from dpo_cli.cli.ledger import ledger
from dpo_cli.cli.pairs import pairs
from dpo_cli.cli.peek import peek
from dpo_cli.cli.precompute import precompute_ref
from dpo_cli.cli.report import report
from dpo_cli.cli.runs import runs
from dpo_cli.cli.sample import sample
from dpo_cli.cli.score import score
from dpo_cli.cli.train import train
from dpo_cli.errors import RecipeError, Stopped, UserError

app = typer.Typer(
    name="dpo",
    help="Align language models from preference data, driven by YAML recipes.",
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help: rich alone takes longer to import than everything else
    pretty_exceptions_enable=False,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(short_help="Write a recipe for data files and a model.")(init)
app.command(short_help="Align a model as a recipe says.")(train)
app.command("eval", short_help="Measure a model on held-out pairs.")(evaluate)
app.command(short_help="Compare models and recipes on the same rows.")(compare)
app.command(short_help="List run folders and how they fare.")(runs)
app.command(short_help="Sample answers from a model and its reference.")(sample)
app.command(short_help="Write a run's page again.")(report)
app.command(short_help="Show pairs that look mislabelled, hard or forgotten.")(ledger)
app.command(short_help="Judge sampled answers: win rates.")(judge)
app.command(short_help="Make preference pairs of sampled answers.")(pairs)
app.command(short_help="Score completions by their implicit reward.")(score)
app.command(short_help="Score a recipe's rows with its reference, for all runs.")(precompute_ref)
app.command(short_help="Check everything short of loading weights.")(check)
app.command(short_help="Write a run's model for servers.")(export)
app.command(short_help="Write pickled weights as safetensors.")(convert)
app.command(short_help="Bring a recipe's model and data here, for a job without network.")(fetch)
app.command(short_help="Talk to a trained model.")(chat)
app.command(short_help="Find what is wrong with preferences as data.")(audit)
app.command(short_help="Print rows token by token, as they are scored.")(peek)
app.add_typer(cache.app, name="cache", short_help="List, verify, clean and exchange reference log-probs.")
app.add_typer(recipes.app, name="recipes", short_help="List, show and copy recipes.")
app.command(short_help="Say what a recipe key or a logged name means, show a loss.")(explain)
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
        typer.Option("--debug", envvar="DPO_DEBUG", help="Show tracebacks; stands anywhere on the line."),
    ] = False,
    plugin: Annotated[
        str | None,
        typer.Option("--plugin", help="Let method.name name a module of this package; stands anywhere."),
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
        _tell(f"dpo: stopped[{error.code}] {error.told}" if error.told else "")
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
