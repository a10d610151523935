"""Rules between a method's own knobs: refused with the file and line."""

import json
from pathlib import Path

import pytest

from dpo_cli.recipe import describe
from dpo_cli.recipe.json_schema import json_schema
from dpo_cli.recipe.load import load
from tests.recipe.build import MINIMAL, load_text, refusals, write


@pytest.mark.parametrize(
    ("method", "wanted"),
    [
        (
            "  loss:\n    sigmoid: 1\n    hinj: 2\n",
            "r.yaml:6: 'method.loss' holds an unknown loss 'hinj'. Fix: did you mean 'hinge'?",
        ),
        ("  loss: hinj\n", "r.yaml:4: 'method.loss' is the text 'hinj', expected sigmoid | robust"),
        ("  loss: {}\n", "r.yaml:4: 'method.loss' is an empty mix"),
        ("  loss: {sft: -1}\n", "r.yaml:4: 'method.loss.sft' is -1, expected a number above 0"),
        ("  loss: {sft: many}\n", "r.yaml:4: 'method.loss.sft' is the text 'many', expected a number"),
        (
            "  beta: 1\n  loss: exo_pair\n",
            "r.yaml:5: 'method.loss' is exo_pair, which is infinite at 'method.label_smoothing' 0."
            " Fix: method.label_smoothing: 0.001",
        ),
        (
            "  loss: {sigmoid: 1, nca_pair: 1}\n  f_divergence: js\n",
            "r.yaml:5: 'method.f_divergence' is js, but nca_pair exists for reverse_kl only",
        ),
        (
            "  loss: hinge\n  label_smoothing: 0.1\n",
            "r.yaml:5: 'method.label_smoothing' is 0.1, but hinge does not read it. Fix: method.label_smoothing: 0",
        ),
        ("  tau: 0.1\n", "r.yaml:4: 'method.tau' is 0.1, but sigmoid does not read it"),
        ("  alpha: 0.3\n", "r.yaml:4: 'method.alpha' is 0.3, but f_divergence reverse_kl does not read it"),
        (
            "  name: simpo\n  gamma: 1.4\n  gamma_beta_ratio: 0.5\n",
            "r.yaml:6: 'method.gamma' is 1.4 and 'method.gamma_beta_ratio' 0.5: two targets. Fix: remove one",
        ),
        (
            "  name: reward\n  margin_scale: 0.1\n",
            "r.yaml:5: 'method.margin_scale' is 0.1, but without 'method.use_margin' there is no margin. Fix: method.use_margin: true",
        ),
        ("  loss_type: hinge\n", "unknown key 'method.loss_type', did you mean 'method.loss'?"),
    ],
)
def test_knobs_that_contradict_each_other_are_refused_by_line(
    tmp_path: Path, method: str, wanted: str
) -> None:
    [problem] = refusals(tmp_path, f"{MINIMAL}method:\n{method}")
    assert wanted in problem


def test_an_override_that_contradicts_is_named(tmp_path: Path) -> None:
    [problem] = refusals(tmp_path, MINIMAL, "method.loss=exo_pair")
    assert problem.startswith("override method.loss: 'method.loss' is exo_pair")


def test_mixes_and_divergences_load_and_survive_the_resolved_recipe(tmp_path: Path) -> None:
    text = MINIMAL + "method: {loss: {sigmoid: 1, sft: 0.2}, f_divergence: alpha, alpha: 0.3}\n"
    loaded = load_text(tmp_path, text, "method.loss.sft=0.5")
    again = load(str(write(tmp_path, describe.to_yaml(loaded.recipe), "again.yaml")))

    assert loaded.recipe.method.loss == {"sigmoid": 1.0, "sft": 0.5}
    assert (again.recipe, again.digest) == (loaded.recipe, loaded.digest)


def test_the_json_schema_knows_losses_and_weights() -> None:
    schema = json.loads(json.dumps(json_schema()))
    [dpo] = [
        each
        for each in schema["properties"]["method"]["anyOf"]
        if each["properties"]["name"]["const"] == "dpo"
    ]
    name, mix = dpo["properties"]["loss"]["anyOf"]

    assert "discopop" in name["enum"]
    assert mix["propertyNames"] == name
    assert mix["additionalProperties"] == {"type": "number", "exclusiveMinimum": 0}
