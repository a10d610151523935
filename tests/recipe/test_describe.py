import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpo_cli import methods
from dpo_cli.errors import RecipeError
from dpo_cli.recipe import describe
from dpo_cli.recipe.find import shipped, shipped_dir
from dpo_cli.recipe.hints import keys
from dpo_cli.recipe.interpolate import escaped
from dpo_cli.recipe.json_schema import json_schema
from dpo_cli.recipe.load import load
from dpo_cli.recipe.relocate import relocated
from dpo_cli.recipe.schema import Recipe
from tests.recipe.build import MINIMAL, load_text, write

CONFIGS = [methods.get(name).config for name in methods.names()]


@pytest.mark.parametrize("config", CONFIGS)
def test_every_field_has_a_docstring(config: type) -> None:
    for key, cls, field in keys(Recipe, config):
        assert len(describe.field_docs(cls).get(field.name, "")) >= 15, key


@pytest.mark.parametrize("name", sorted(shipped()))
def test_shipped_recipes_load_resolve_and_say_what_they_are(name: str, tmp_path: Path) -> None:
    loaded = load(name)
    again = load(str(write(tmp_path, describe.to_yaml(loaded.recipe))))
    assert (again.recipe, again.digest) == (loaded.recipe, loaded.digest)
    assert describe.header(loaded.path)
    assert "Hardware" in loaded.path.read_text()


@pytest.mark.parametrize("name", sorted(shipped()))
def test_shipped_recipes_repeat_no_default(name: str) -> None:
    loaded = load(name)
    moved = {change.key for change in describe.changed(loaded)}
    written = {
        key
        for key in loaded.origin
        if not any(other.startswith((f"{key}.", f"{key}[")) for other in loaded.origin)
    }
    assert written - moved <= {"method.name", "method.beta", "optim.lr", "train.batch_size"}, (
        "the four that a reader looks for"
    )


@settings(max_examples=30, deadline=None)
@given(st.text(), st.text(alphabet="\\${}a.:", max_size=12))
def test_any_text_survives_the_resolved_recipe(
    tmp_path_factory: pytest.TempPathFactory, text: str, odd: str
) -> None:
    folder = tmp_path_factory.getbasetemp()
    clean = "".join(c for c in text if c.isprintable() or c in "\n\t")
    recipe = load_text(folder, MINIMAL).recipe
    for value in (clean, odd, clean + odd):
        wanted = dataclasses.replace(
            recipe, data=dataclasses.replace(recipe.data, system=value, chat_template_kwargs={"a": [value]})
        )
        if value.strip() != "???":
            assert load(str(write(folder, describe.to_yaml(wanted), "again.yaml"))).recipe == wanted


def test_escapes_are_only_added_where_needed() -> None:
    assert escaped("a $ { \\ b") == "a $ { \\ b"
    assert escaped("${a}") == "\\${a}"


def test_changed_keys_come_with_their_default_and_origin(tmp_path: Path) -> None:
    loaded = load_text(tmp_path, MINIMAL + "optim:\n  lr: 1e-6\n", "data.train[0].weight=2")
    found = {c.key: (c.value, c.default, c.origin.rpartition("/")[2]) for c in describe.changed(loaded)}
    assert found == {
        "model.name": ("org/model", None, "r.yaml:1"),
        "data.train[0].path": (str(tmp_path / "rows.jsonl"), None, "r.yaml:2"),
        "data.train[0].weight": (2.0, 1.0, "override"),
        "optim.lr": (1e-6, 5e-7, "r.yaml:4"),
    }


def test_the_json_schema_file_is_current() -> None:
    written = json.loads((shipped_dir() / "schema.json").read_text())
    assert written == json_schema(), "run: dpo recipes schema > recipes/schema.json"


def test_the_json_schema_allows_nothing_unknown_and_knows_every_key() -> None:
    schema = json_schema()
    methods = {each["properties"]["name"]["const"]: each for each in schema["properties"]["method"]["anyOf"]}
    method = methods[CONFIGS[0].name]
    assert methods["dpo"]["properties"]["beta"]["exclusiveMinimum"] == 0
    for key, _, _ in keys(Recipe, CONFIGS[0]):
        node = schema
        for part in key.replace("[]", ".items").split("."):
            if part != "items" and "anyOf" in node and "properties" not in node:  # a group, or null
                node = node["anyOf"][0]
            node = (
                node["items"]
                if part == "items"
                else (method if node is schema and part == "method" else node["properties"][part])
            )
            assert (
                node.get("type") != "object"
                or "additionalProperties" in node
                or "kwargs" in key
                or node.get("anyOf")
            ), key


def test_explain_tells_meaning_bounds_and_default() -> None:
    assert describe.explain("optim.lr").startswith(
        "optim.lr: a number above 0, at most 1; default 5e-07\n    Peak learning rate"
    )
    assert "data.train[].weight: a number above 0" in describe.explain("data.train[3].weight")
    assert "method.label_smoothing" in describe.explain("method")
    betas = describe.explain("method.beta")
    assert "[simpo] method.beta: a number above 0; default 2.0" in betas
    assert "The paper's lambda" in betas
    with pytest.raises(RecipeError, match=r"did you mean 'optim\.lr'"):
        describe.explain("train.lr")


def test_a_relocated_recipe_means_the_same_elsewhere(tmp_path: Path) -> None:
    copy = write(tmp_path / "far" / "away", relocated(shipped()["quickstart"]))
    assert load(str(copy)).recipe == load("quickstart").recipe
    assert "# Hardware" in copy.read_text()
