import os
import subprocess
import sys
from pathlib import Path

import pytest

from dpo_cli.errors import RecipeError
from dpo_cli.recipe.load import load
from tests.recipe.build import MINIMAL, load_text, refusals, write

FIVE = """\
model: {name: org/model}
data:
  train: [{path: rows.jsonl, limitt: 5}]
method: {betta: 0.1}
optim:
  lr: .nan
train:
  batch_size: many
lgo: {}
"""


def test_five_mistakes_are_all_told_at_once(tmp_path: Path) -> None:
    write(tmp_path, FIVE)
    done = subprocess.run(
        [sys.executable, "-m", "dpo_cli", "recipes", "show", str(tmp_path / "r.yaml")],
        capture_output=True,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
    )
    lines = done.stderr.replace(f"{tmp_path}/", "").splitlines()
    assert lines == [
        "dpo: error[2] r.yaml:3: unknown key 'data.train[0].limitt', did you mean 'data.train[0].limit'?",
        "dpo: error[2] r.yaml:4: unknown key 'method.betta', did you mean 'method.beta'?",
        "dpo: error[2] r.yaml:6: 'optim.lr' is nan, expected a number above 0, at most 1",
        "dpo: error[2] r.yaml:8: 'train.batch_size' is the text 'many', expected a whole number at least 1",
        "dpo: error[2] r.yaml:9: unknown key 'lgo', did you mean 'log'?",
    ]
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("optim: {lrr: 1}", "r.yaml:3: unknown key 'optim.lrr', did you mean 'optim.lr'?"),
        (
            "optim: {batch_size: 1}",
            "r.yaml:3: unknown key 'optim.batch_size', did you mean 'train.batch_size'?",
        ),
        ("optim.lr: 1", "r.yaml:3: unknown key 'optim.lr', write groups, as in `optim: {lr: 1e-6}`"),
        ("learning_rate: 1", "r.yaml:3: unknown key 'learning_rate', did you mean 'optim.lr'?"),
        ("train: {epochs: [1]}", "r.yaml:3: 'train.epochs' is a list of 1, expected a number above 0"),
        ("train: 3", "r.yaml:3: 'train' is 3, expected a group of keys"),
        ("train:", "r.yaml:3: 'train' is empty (null), expected a group of keys"),
        ("optim: {lr: }", "r.yaml:3: 'optim.lr' is empty (null), expected a number above 0, at most 1"),
        (
            "optim: {schedule: poly}",
            "'optim.schedule' is the text 'poly', expected linear | cosine | constant",
        ),
        ("method: {name: dpoo}", "r.yaml:3: 'method.name' is the text 'dpoo', expected dpo"),
        ("optim: {betas: [1, 2, 3]}", "'optim.betas' is a list of 3, expected a list of exactly 2 numbers"),
        ("log: {trackers: [mlflow]}", "r.yaml:3: 'log.trackers[0]' is the text 'mlflow', expected wandb"),
        ("optim:\n  lr: 1\n  lr: 2", "r.yaml:5: 'optim.lr' is set a second time. Fix: keep one"),
        ("optim:\n\tlr: 1", "r.yaml:4: not valid YAML: found character that cannot start any token"),
        ("optim: {lr: 1", "not valid YAML"),
        ("---\nmodel: {}", "r.yaml:3: a second document starts"),
        ("? [a, b]\n: 1", "a key that is itself a list or a group"),
        (
            "data: {chat_template_kwargs: {a: {b: .inf}}}",
            "r.yaml:3: 'data' is set a second time",
        ),
    ],
)
def test_fault_063_the_line_and_key_are_named(tmp_path: Path, text: str, wanted: str) -> None:
    assert any(wanted in problem for problem in refusals(tmp_path, MINIMAL + text + "\n"))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", "r.yaml:1: the recipe is empty"),
        ("# only a comment\n", "r.yaml:1: the recipe is empty"),
        ("- a\n- b\n", "r.yaml:1: a recipe is a group of keys, not a list or a text"),
        ("just text", "r.yaml:1: a recipe is a group of keys, not a list or a text"),
        ("{}", "'model.name' is missing, expected a folder or a hub id"),
    ],
)
def test_fault_063_files_that_are_no_recipe(tmp_path: Path, text: str, wanted: str) -> None:
    assert any(wanted in problem for problem in refusals(tmp_path, text))


def test_fault_063_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_bytes(b"model: {name: a}\nname: \xff\n")
    with pytest.raises(RecipeError, match=r"r\.yaml:2: byte 23 is not UTF-8"):
        load(str(tmp_path / "r.yaml"))
    (tmp_path / "r.yaml").write_bytes("model: {name: éééé}\nname: \x00\n".encode())
    with pytest.raises(RecipeError, match=r"r\.yaml:2: .*not "):
        load(str(tmp_path / "r.yaml"))


def test_byte_order_mark_and_crlf_are_accepted(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_bytes(b"\xef\xbb\xbf" + MINIMAL.replace("\n", "\r\n").encode())
    assert load(str(tmp_path / "r.yaml")).recipe.model.name == "org/model"


@pytest.mark.parametrize(
    ("override", "wanted"),
    [
        ("method.beta=0", "expected a number above 0"),
        ("method.beta=-0.1", "is -0.1, expected a number above 0"),
        ("method.label_smoothing=0.5", "at least 0, below 0.5"),
        ("optim.lr=0", "above 0"),
        ("optim.lr=.nan", "is nan"),
        ("optim.lr=nan", "is nan"),
        ("optim.lr=inf", "is inf"),
        ("optim.lr=1e999", "is inf"),
        ("optim.clip_norm=-.inf", "is -inf"),
        ("train.batch_size=0", "a whole number at least 1"),
        ("train.batch_size=1.5", "is 1.5, expected a whole number"),
        ("data.max_length=1", "a whole number at least 2"),
        ("data.split.eval=1", "below 1"),
        ("optim.betas=[0.9, 1]", "'optim.betas[1]' is 1"),
        ("train.max_tokens_per_micro_batch=all", "auto or a whole number at least 2"),
        ("data.chat_template_kwargs={a: [{b: .inf}]}", "is inf, expected a value"),
        ("data.train=[]", "a list of at least 1 groups of keys"),
    ],
)
def test_fault_064_values_out_of_range_are_told_with_the_range(
    tmp_path: Path, override: str, wanted: str
) -> None:
    [problem] = refusals(tmp_path, MINIMAL, override)
    assert problem.startswith(f"override {override.partition('=')[0]}: ")
    assert wanted in problem


def test_fault_064_warmup_longer_than_the_run(tmp_path: Path) -> None:
    [problem] = refusals(tmp_path, MINIMAL, "optim.warmup=11", "train.max_steps=10")
    assert "Fix: at most 10, or a share below 1" in problem


GOLDEN = [
    ("optim.lr", "5e-7", 5e-7),
    ("optim.lr", "5E-7", 5e-7),
    ("optim.lr", ".5", 0.5),
    ("optim.lr", "1", 1.0),
    ("train.max_steps", "1_000", 1000),
    ("train.max_steps", "+5", 5),
    ("train.max_steps", "null", None),
    ("train.max_steps", "~", None),
    ("train.dropout", "true", True),
    ("train.dropout", "yes", True),
    ("train.dropout", "On", True),
    ("train.dropout", "no", False),
    ("train.dropout", "off", False),
    ("model.revision", "7e55760", "7e55760"),
    ("model.revision", "0012", "0012"),
    ("model.revision", "1234567", "1234567"),
    ("model.revision", "yes", "yes"),
    ("model.revision", "2020-01-01", "2020-01-01"),
    ("model.revision", "'null'", "null"),
    ("model.revision", "null", None),
    ("data.system", "12:30:00", "12:30:00"),
    (
        "data.chat_template_kwargs",
        "{a: 1_0, b: on, c: '1', d: 1e1, e: 010}",
        {"a": 10, "b": True, "c": "1", "d": 10.0, "e": "010"},
    ),
]
REFUSED = [
    ("train.dropout", "'false'", "the text 'false', expected true or false"),
    ("train.dropout", "1", "is 1, expected true or false"),
    ("train.dropout", "y", "the text 'y', expected true or false"),
    ("optim.lr", "'5e-7'", "the text '5e-7', expected a number"),
    ("optim.lr", "true", "is true, expected a number"),
    ("train.seed", "true", "is true, expected a whole number"),
    ("train.seed", "1e3", "is 1000.0, expected a whole number"),
    ("train.seed", "010", "the text '010', expected a whole number"),
    ("train.seed", "9" * 5000, "expected a whole number"),
]


@pytest.mark.parametrize(("key", "text", "wanted"), GOLDEN)
def test_fault_065_what_yaml_words_mean(tmp_path: Path, key: str, text: str, wanted: object) -> None:
    group, _, name = key.partition(".")
    written = (
        load_text(tmp_path, f"{MINIMAL if group not in MINIMAL else ''}", f"{key}={text}") if False else None
    )
    assert written is None
    for loaded in (load_text(tmp_path, MINIMAL, f"{key}={text}"),):
        value = vars(vars(loaded.recipe)[group])[name]
        assert value == wanted
        assert type(value) is type(wanted)


@pytest.mark.parametrize(("key", "text", "wanted"), REFUSED)
def test_fault_065_nothing_is_cast(tmp_path: Path, key: str, text: str, wanted: str) -> None:
    group, _, name = key.partition(".")
    [problem] = refusals(tmp_path, f"{MINIMAL}{group}: {{{name}: {text}}}\n")
    assert wanted in problem


@pytest.mark.parametrize(
    ("overrides", "wanted"),
    [
        (["optm.lr=1"], "override optm.lr: unknown key 'optm', did you mean 'optim'?"),
        (["optim.lr"], "override optim.lr: has no `=`"),
        (["optim.lr="], "override optim.lr: has no value"),
        (["--lr=1"], "override '--lr': is no key"),
        (["optim..lr=1"], "is no key"),
        (
            ["data.train[4].path=x"],
            "override data.train[4].path: 'data.train' has 1 entries, none numbered 4",
        ),
        (["data.eval[0].path=x"], "'data.eval' has 0 entries, none numbered 0"),
        (["data.train[" + "9" * 5000 + "]=x"], "is no key"),
        (["data.train.path=x"], "'data.train' is no group of keys. Fix: data.train[0].path"),
        (["model.name.x=1"], "'model.name' is no group of keys"),
        (["~optim.lr"], "'optim.lr' is not set in the recipe"),
        (["~data.train[0]"], "takes one entry out of a list"),
        (["~model.name=1"], "`~` takes no value"),
        (["~model.name"], "'model.name' is missing"),
        (["optim.lr=???"], "'optim.lr' is '???', still to be given: a number"),
        (["optim.lr=${optim.eps}", "optim.eps=${optim.lr}"], "Recursive interpolation"),
        (["optim.lr=${optim.lr}"], "'optim.lr': "),
        (["optim.lr=${optim.rl}"], "Interpolation key 'optim.rl' not found"),
        (["optim.lr=[1"], "override optim.lr: not valid YAML"),
    ],
)
def test_fault_067_overrides_that_cannot_be_meant(tmp_path: Path, overrides: list[str], wanted: str) -> None:
    assert any(wanted in problem for problem in refusals(tmp_path, MINIMAL, *overrides))


def test_fault_067_a_missing_recipe_is_named() -> None:
    with pytest.raises(RecipeError, match=r"RECIPE: no recipe 'nope/x\.yaml'"):
        load("nope/x.yaml")


def test_overrides_reach_into_lists_replace_groups_and_delete(tmp_path: Path) -> None:
    text = MINIMAL + "method: {beta: 0.3, label_smoothing: 0.1}\noptim: {lr: 1e-6}\n"
    recipe = load_text(
        tmp_path,
        text,
        "data.train[0].limit=5",
        "data.train[0].columns.prompt=question",
        "method={name: dpo}",
        "~optim.lr",
        "data.system=Be kind # not a comment",
    ).recipe
    assert (recipe.data.train[0].limit, recipe.data.train[0].columns) == (5, {"prompt": "question"})
    assert (recipe.method.beta, recipe.method.label_smoothing, recipe.optim.lr) == (0.1, 0.0, 5e-7)
    assert recipe.data.system == "Be kind # not a comment"


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{c}: &{c} [{','.join(['*' + p] * 9)}]\n" for p, c in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "text",
    [
        "name: !!python/object/apply:os.system ['touch marker']\n",
        "name: !!python/name:os.system\n",
        "name: !!str x\n",
        "name: !local x\n",
        "model: !!map {name: x}\n",
        BOMB,
        "model: &m {name: x}\nreference: *m\n",
        "<<: {model: {name: x}}\n",
        "x: " + "[" * 3000 + "]" * 3000 + "\n",
        "".join(" " * i + "a:\n" for i in range(3000)),
        "x: [" + "'${name}'," * 101 + "]\n",
        "x: [" + "1," * 20_000 + "]\n",
        "# " + "x" * 1_000_001,
    ],
    ids=lambda text: text[:24],
)
def test_fault_095_hostile_yaml_is_refused_by_line(
    tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert refusals(tmp_path, text)[0].startswith("r.yaml")
    assert os.listdir(tmp_path) == ["r.yaml"]


@pytest.mark.parametrize(
    "value",
    [
        "${oc.env:HF_TOKEN}",
        "${oc.env:HF_TOKEN,x}",
        "${oc.coerce:evil.X,1}",
        "${oc.create:{a: 1}}",
        '${oc.decode:"1"}',
        "${oc.select:model.name}",
        "${oc.dict.keys:model}",
        "${${model.name}:HF_TOKEN}",
        "${model.${name}}",
        "x${oc.env:HF_TOKEN}y",
        "${ oc.env:HF_TOKEN}",
        "\\\\${oc.env:HF_TOKEN}",
        "${",
    ],
)
def test_fault_096_resolvers_read_nothing_and_run_nothing(
    tmp_path: Path, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "evil.py").write_text("open(__file__ + '.marker', 'w')\nX = int\n")
    for override in (f"data.system='{value}'", f"name='{value}'", f"model.name='{value}'"):
        [problem] = refusals(tmp_path, MINIMAL, override)
        assert "only another key of the recipe can stand in ${...}" in problem
        assert "hf_secret" not in problem
    assert not (tmp_path / "evil.py.marker").exists()


def test_fault_096_pieces_do_not_join_into_a_resolver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    text = MINIMAL + "log: {wandb: {project: $, entity: '${log.wandb.project}{oc.env:HF_TOKEN}'}}\n"
    recipe = load_text(tmp_path, text, "data.system=${log.wandb.entity}").recipe
    assert recipe.log.wandb.entity == recipe.data.system == "${oc.env:HF_TOKEN}"
