"""`dpo cache`: what lies in the reference store, whether it is whole, and what can go."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from dpo_cli.cli.arguments import JsonOption, OverridesArgument, RecipeArgument

app = typer.Typer(help="List, verify, clean and exchange reference log-probs.", no_args_is_help=True)

StoreOption = Annotated[
    Path | None,
    typer.Option("--store", metavar="FOLDER", help="The store; by default the one in your cache folder."),
]


@app.command("ls")
def list_namespaces(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """List the references in the store: completions, size, runs."""
    from dpo_cli.reference.maintenance import namespaces
    from dpo_cli.reference.store import default_root

    root = store or default_root()
    found = namespaces(root)
    if as_json:
        print(json.dumps({"store": str(root), "namespaces": [each.as_dict() for each in found]}))
        return
    print(f"store {root}: {len(found)} namespaces, {size(sum(each.n_bytes for each in found))}")
    for each in found:
        facts = each.as_dict()
        name = f"{facts.get('model', '?')}, {facts.get('precision', '?')}, {facts.get('layout', '?')} rows"
        extra = f" ({each.imported:,} imported)" if each.imported else ""
        extra += f", {each.damaged} damaged segments set aside" if each.damaged else ""
        print(
            f"{each.folder.name[:12]}  {name}: {each.completions + each.imported:,} completions{extra}, {size(each.n_bytes)}"
        )
        runs = f"{', '.join(each.runs[:3])}{', ...' if len(each.runs) > 3 else ''}" if each.runs else "no run"
        print(f"{'':<12}  made {facts.get('made', '?')}, last used {facts['used']} by {runs}")


@app.command()
def verify(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Read the whole store and set damaged segments aside. Exits with 5 if there are any."""
    from dpo_cli.errors import Problem, StorageError
    from dpo_cli.reference.maintenance import namespaces
    from dpo_cli.reference.maintenance import verify as read_all
    from dpo_cli.reference.store import default_root

    root = store or default_root()
    whole, damaged = 0, list[Path]()
    for each in namespaces(root):
        completions, aside = read_all(each)
        whole += completions
        damaged += aside
    if as_json:
        print(json.dumps({"store": str(root), "completions": whole, "damaged": [str(p) for p in damaged]}))
    else:
        print(f"store {root}: {whole:,} completions whole, {len(damaged)} damaged segments")
    if damaged:
        fix = "nothing to do: its rows are scored again when they are needed"
        raise StorageError(Problem(str(path), "damaged, set aside", fix) for path in damaged)


@app.command()
def gc(
    namespace: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="DIGEST", help="References to remove, by the start of what `dpo cache ls` shows."
        ),
    ] = None,
    unused_days: Annotated[
        float | None,
        typer.Option(metavar="N", min=0, help="Also remove references that no run used for N days."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove damaged segments, and the references that you name. What killed writers left over a day ago goes too."""
    from dpo_cli.reference.maintenance import clean
    from dpo_cli.reference.store import default_root

    gone = clean(store or default_root(), unused_days, namespace or [], dry_run)
    if as_json:
        print(
            json.dumps({"removed": [{"path": str(path), "bytes": n} for path, n in gone], "dry_run": dry_run})
        )
        return
    for path, n in gone:
        print(f"{'would remove' if dry_run else 'removed'} {path}  {size(n)}")
    print(f"{len(gone)} removed, {size(sum(n for _, n in gone))}" if not dry_run else "nothing was removed")


@app.command("export")
def export_values(
    recipe: RecipeArgument,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Parquet file to write.")],
    overrides: OverridesArgument = None,
) -> None:
    """Write a recipe's rows with reference log-probs in TRL's columns. What is missing is scored first."""
    from dpo_cli.cli import here
    from dpo_cli.recipe.load import load

    loaded = load(recipe, overrides or [], here.reference)
    from dpo_cli.reference.precompute import open_session, precompute
    from dpo_cli.reference.trl_columns import check_pairs, export

    check_pairs(loaded)
    with open_session(loaded) as session:
        done = precompute(session)
        if session.runtime.is_main:
            export(session.rows, done.prepared.values, file)
            print(f"{len(session.rows):,} rows with ref_chosen_logps and ref_rejected_logps: {file}")


@app.command("import")
def import_values(
    recipe: RecipeArgument,
    file: Annotated[
        str,
        typer.Argument(metavar="FILE", help="Rows with ref_chosen_logps and ref_rejected_logps, in nats."),
    ],
    overrides: OverridesArgument = None,
) -> None:
    """Take in reference log-probs that TRL computed. A few are scored again first; the values stay marked as imported."""
    from dpo_cli.cli import here
    from dpo_cli.recipe.load import load

    loaded = load(recipe, overrides or [], here.reference)
    from dpo_cli.reference.precompute import open_session
    from dpo_cli.reference.trl_columns import check_pairs, only, take_in

    check_pairs(loaded)
    with open_session(only(loaded, file)) as session:
        taken, checked, store = take_in(session)
    print(f"{taken:,} completions taken in, marked as imported; {checked}\nstore {store.folder}")


def size(n_bytes: int) -> str:
    """Write an amount of memory for people."""
    value = float(n_bytes)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"
