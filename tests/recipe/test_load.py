import json
from pathlib import Path

import pytest

from dpo_cli.errors import RecipeError
from dpo_cli.methods.dpo import DPOConfig
from dpo_cli.methods.simpo import SimPOConfig
from dpo_cli.recipe.load import load, run_name
from tests.recipe.build import MINIMAL, load_text, refusals, write


def test_a_minimal_recipe_has_every_default(tmp_path: Path) -> None:
    recipe = load_text(tmp_path, MINIMAL).recipe
    assert (recipe.model.name, recipe.method.name, recipe.method.beta) == ("org/model", "dpo", 0.1)
    assert (recipe.optim.lr, recipe.train.batch_size, recipe.log.trackers) == (5e-7, 32, [])


def test_precedence_is_defaults_parents_file_overrides(tmp_path: Path) -> None:
    write(tmp_path, MINIMAL + "optim: {lr: 1e-6, warmup: 0.2, clip_norm: 2}\n", "base.yaml")
    text = "extends: base.yaml\noptim: {lr: 2e-6, warmup: 0.3}\n"
    loaded = load_text(tmp_path, text, "optim.lr=3e-6")
    optim = loaded.recipe.optim
    assert (optim.lr, optim.warmup, optim.clip_norm, optim.eps) == (3e-6, 0.3, 2.0, 1e-8)
    assert loaded.origin["optim.lr"] == "override"
    assert loaded.origin["optim.warmup"].endswith("r.yaml:2")
    assert loaded.origin["optim.clip_norm"].endswith("base.yaml:3")
    assert "optim.eps" not in loaded.origin


def test_lists_replace_and_groups_merge_over_several_parents(tmp_path: Path) -> None:
    write(tmp_path, MINIMAL + "optim: {betas: [0.8, 0.9]}\nlog: {wandb: {tags: [a, b]}}\n", "a.yaml")
    write(tmp_path, "optim: {betas: [0.5, 0.6], lr: 1e-6}\n", "b.yaml")
    recipe = load_text(tmp_path, "extends: [a.yaml, b.yaml]\nlog: {wandb: {tags: [c]}}\n").recipe
    assert (recipe.optim.betas, recipe.optim.lr, recipe.log.wandb.tags) == ([0.5, 0.6], 1e-6, ["c"])


def test_a_shipped_recipe_is_a_parent(tmp_path: Path) -> None:
    recipe = load_text(tmp_path, "extends: builtin:quickstart\ntrain: {seed: 7}\n").recipe
    assert recipe.train.seed == 7
    assert recipe.data.train[0].path.endswith("recipes/starter/train.jsonl")


def test_a_circle_of_parents_is_told_with_its_chain(tmp_path: Path) -> None:
    write(tmp_path, "extends: b.yaml\n", "a.yaml")
    write(tmp_path, "extends: r.yaml\n", "b.yaml")
    [problem] = refusals(tmp_path, "extends: a.yaml\n")
    assert "b.yaml:1: 'extends' goes in a circle" in problem
    assert "r.yaml -> a.yaml -> b.yaml -> r.yaml" in problem


def test_parents_that_do_not_exist_are_named(tmp_path: Path) -> None:
    assert "r.yaml:1: 'extends' names no file" in refusals(tmp_path, "extends: nope.yaml\n")[0]
    assert "names no shipped recipe: 'builtin:nope'" in refusals(tmp_path, "extends: builtin:nope\n")[0]
    assert "'extends' is no path" in refusals(tmp_path, "extends: {a: 1}\n")[0]


def test_paths_resolve_against_the_file_that_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "base" / "local").mkdir(parents=True)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    write(
        tmp_path,
        "model: {name: local, tokenizer: org/tokenizer, chat_template: t.jinja}\n"
        "data: {train: [{path: rows.jsonl}, {path: org/set}, {path: 'x/*'}, {path: ./set}]}\n",
        "base/b.yaml",
    )
    loaded = load_text(
        tmp_path,
        "extends: base/b.yaml\nreference: {store: s}\n",
        "data.eval=[{path: e.csv}]",
        "train.output_dir=o",
    )
    recipe, base = loaded.recipe, tmp_path / "base"
    assert recipe.model.name == str(base / "local")
    assert recipe.model.tokenizer == "org/tokenizer"
    assert recipe.model.chat_template == str(base / "t.jinja")
    assert [s.path for s in recipe.data.train] == [
        str(base / "rows.jsonl"),
        "org/set",
        str(base / "x/*"),
        str(base / "set"),
    ]
    assert recipe.reference.store == str(tmp_path / "s")
    assert recipe.data.eval[0].path == str(elsewhere / "e.csv")
    assert recipe.train.output_dir == "o"


def test_model_ids_stay_ids_and_paths_become_absolute(tmp_path: Path) -> None:
    for name, wanted in (
        ("org/name", "org/name"),
        ("../m", str(tmp_path.parent / "m")),
        ("/abs/m", "/abs/m"),
    ):
        text = f"model: {{name: {name}}}\ndata: {{train: [{{path: Anthropic/hh-rlhf}}]}}\n"
        recipe = load_text(tmp_path, text).recipe
        assert (recipe.model.name, recipe.data.train[0].path) == (wanted, "Anthropic/hh-rlhf")


def test_interpolation_takes_keys_and_defaults(tmp_path: Path) -> None:
    text = (
        MINIMAL
        + "optim: {lr: 1e-6, eps: '${optim.lr}'}\nlog: {wandb: {project: 'lr-${optim.lr}-${optim.warmup}'}}\n"
    )
    recipe = load_text(tmp_path, text, "train.seed=${train.batch_size}").recipe
    assert (recipe.optim.eps, recipe.log.wandb.project, recipe.train.seed) == (1e-6, "lr-1e-06-0.1", 32)


def test_the_digest_follows_what_decides_the_result_and_nothing_else(tmp_path: Path) -> None:
    def digest(*overrides: str) -> str:
        return load_text(tmp_path, MINIMAL, *overrides).digest

    inert = (
        "name=x",
        "log.every=1",
        "train.output_dir=o",
        "train.resume=never",
        "train.keep_last=9",
        "data.cache=c",
    )
    assert digest(*inert, "reference.store=s", "train.save_every=1") == digest()
    for override in (
        "train.seed=1",
        "method.beta=0.2",
        "optim.lr=1e-6",
        "data.max_length=8",
        "train.batch_size=1",
    ):
        assert digest(override) != digest(), override
    assert digest("optim.lr=5e-7", "train.epochs=1.0") == digest()


def test_run_names_come_from_the_file_or_the_recipe(tmp_path: Path) -> None:
    loaded = load_text(tmp_path, MINIMAL)
    assert run_name(loaded) == f"r-{loaded.digest[:8]}"
    assert run_name(load_text(tmp_path, MINIMAL, "name=b{method.beta}-s{train.seed}")) == "b0.1-s0"
    write(tmp_path, MINIMAL, "-my recipe!.yaml")
    assert run_name(load(str(tmp_path / "-my recipe!.yaml"))).startswith("my-recipe--")


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "/abs",
        "a\\0b",
        "x" * 300,
        "-rf",
        "\\e[31mred",
        "[bold]x",
        "a/b",
        "",
        ".hidden",
        "{method.beta}/x",
    ],
)
def test_fault_097_names_that_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    [problem] = refusals(tmp_path, f'name: "{name}"\n{MINIMAL}')
    assert problem.startswith("r.yaml:1: 'name'")
    assert problem.isprintable()


@pytest.mark.parametrize(
    "name", ["{beta}", "{method.beta.__class__}", "{method.beta:>99999}", "{0}", "{name}", "{}", "{\\e[31m}"]
)
def test_fault_097_name_fields_are_keys_only(tmp_path: Path, name: str) -> None:
    assert "is no key of the recipe" in refusals(tmp_path, MINIMAL, f'name="x{name}"')[0]


def test_contradictions_name_the_key_to_change(tmp_path: Path) -> None:
    text = MINIMAL + "optim:\n  warmup: 9\ntrain: {max_steps: 5}\nreference: {source: none}\n"
    found = refusals(tmp_path, text, "data.split={eval: 0.6, test: 0.5}")
    assert [line.partition(" is ")[0] for line in found] == [
        "override data.split: 'data.split' holds out 0.6 + 0.5 of the rows and leaves none to train on. "
        "Fix: data.split.eval + data.split.test below 1",
        "r.yaml:4: 'optim.warmup'",
        "r.yaml:6: 'reference.source'",
    ]
    assert "more than 'train.max_steps' (5)" in found[1]


def test_a_fraction_of_a_warmup_step_is_refused(tmp_path: Path) -> None:
    assert "from 1 on it counts steps" in refusals(tmp_path, MINIMAL, "optim.warmup=2.5")[0]


def test_recipes_are_found_by_name_or_refused_with_the_nearest(tmp_path: Path) -> None:
    assert load("quickstart").path == load("quickstart.yaml").path
    with pytest.raises(RecipeError, match="did you mean 'quickstart'"):
        load("quikstart")
    with pytest.raises(RecipeError, match="is a folder"):
        load(str(tmp_path))


def test_origins_are_json(tmp_path: Path) -> None:
    assert json.loads(json.dumps(load_text(tmp_path, MINIMAL).origin))["model.name"].endswith(":1")


def test_another_method_starts_from_its_own_defaults(tmp_path: Path) -> None:
    write(tmp_path, MINIMAL + "method: {name: dpo, beta: 0.3, label_smoothing: 0.1}\n", "parent.yaml")
    child = write(tmp_path, "extends: parent.yaml\nmethod: {name: simpo}\n", "child.yaml")
    same = write(tmp_path, "extends: parent.yaml\nmethod: {label_smoothing: 0.2}\n", "same.yaml")

    assert load(str(child)).recipe.method == SimPOConfig()
    assert load(str(same)).recipe.method == DPOConfig(beta=0.3, label_smoothing=0.2)
    parent = str(tmp_path / "parent.yaml")
    assert load(parent, ["method.name=simpo"]).recipe.method == SimPOConfig()
    assert load(parent, ["method.beta=4", "method.name=simpo"]).recipe.method == SimPOConfig(beta=4)
    assert load(parent, ["method.name=dpo"]).recipe.method == DPOConfig(beta=0.3, label_smoothing=0.1)
