"""`dpo plan`: a table that sums up, an exit code that says whether it fits, and help that needs no torch."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from dpo_cli.cli.app import app
from dpo_cli.cli.train.plan import UNFIT
from dpo_cli.errors import OutOfMemoryError, RecipeError
from dpo_cli.recipe.find import find
from tests.fakes import write_jsonl, write_model


def plan(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["plan", *arguments], catch_exceptions=False)


def facts(*arguments: str) -> dict[str, Any]:
    done = plan(*arguments, "--json")
    found: dict[str, Any] = json.loads(done.stdout)
    assert done.exit_code == (0 if found["fits"] else UNFIT)
    return found


def recipe(folder: Path, n: int = 40) -> str:
    write_jsonl(
        folder / "rows.jsonl",
        [{"prompt": f"say {i}", "chosen": "yes " * 5, "rejected": "no"} for i in range(n)],
    )
    path = folder / "r.yaml"
    path.write_text(
        f"model: {{name: {write_model(folder / 'tiny')}}}\ndata: {{train: [{{path: rows.jsonl}}]}}\n"
    )
    return str(path)


def test_the_table_sums_up_and_is_followed_by_what_it_means() -> None:
    done = plan("llama8b_dpo_lora", "--gpu", "rtx4090")

    numbers = dict(re.findall(r"^(\w+) +([\d.]+)  ", done.stdout, flags=re.MULTILINE))
    total = float(numbers.pop("total"))
    assert sum(map(float, numbers.values())) == pytest.approx(total, abs=0.05)
    assert {"weights", "gradients", "moments", "activations", "head", "overhead"} == set(numbers)
    assert "8.03B parameters, an adapter of rank 16, bf16" in done.stdout
    assert "blocks   checkpointed; " in done.stdout
    assert "rows     not counted: the rows are not in files here" in done.stdout
    assert done.stdout.splitlines()[-1] == "FITS" and done.exit_code == 0


def test_what_does_not_fit_ends_with_the_code_of_a_run_out_of_memory() -> None:
    done = plan("llama7b_hh", "--memory", "24")

    assert done.exit_code == UNFIT == OutOfMemoryError.code
    assert "DOES NOT FIT" in done.stdout
    assert re.search(
        r"^  'model\.adapter=\{rank: 16\}' train\.weights=fp32: saves .* GiB in all, fits$",
        done.stdout,
        re.MULTILINE,
    )


def test_rows_here_are_counted_and_cost_follows(tmp_path: Path) -> None:
    path = recipe(tmp_path)

    found = facts(path, "--gpu", "h200", "--price", "2", "--devices", "2")

    assert found["epoch"]["examples"] == found["epoch"]["completions"] / 2 > 30
    assert found["steps"] == 2
    assert found["cost_usd"] == pytest.approx(2 * 2 * found["seconds"]["run"] / 3600)
    assert found["bytes"]["total"] == sum(v for k, v in found["bytes"].items() if k != "total")
    shown = plan(path, "--gpu", "h200", "--price", "2", "--devices", "2").stdout
    assert "h200 x 2: each holds all weights" in shown and "cost     about 0.00 USD" in shown
    assert facts(path)["seconds"]["run"] is None


def test_a_tokenizer_that_is_not_here_leaves_the_rows_uncounted(tmp_path: Path) -> None:
    done = plan(recipe(tmp_path), "model.name=org/llama-3.2-1B", "--gpu", "h200")

    assert "rows     not counted: no tokenizer: 'org/llama-3.2-1B'" in done.stdout


def test_an_adapter_that_goes_on_is_what_is_trained(tmp_path: Path) -> None:
    path, adapter = recipe(tmp_path), tmp_path / "adapter"
    adapter.mkdir()
    settings = {"base_model_name_or_path": str(tmp_path / "tiny"), "r": 4}
    (adapter / "adapter_config.json").write_text(json.dumps(settings))

    found = facts(path, f"model.name={adapter}", "--gpu", "a10")

    assert found["setup"]["adapter_rank"] == 4
    assert found["epoch"]["examples"] > 30
    assert found["bytes"] == facts(path, "model.adapter={rank: 4}", "--gpu", "a10")["bytes"]


def test_it_leaves_nothing_behind(tmp_path: Path) -> None:
    path = recipe(tmp_path)
    before = sorted(tmp_path.rglob("*"))

    plan(path, "--gpu", "a10")

    assert sorted(tmp_path.rglob("*")) == before


def test_two_answers_to_one_question_are_refused() -> None:
    with pytest.raises(RecipeError, match="--memory: is set beside --gpu"):
        plan("llama7b_hh", "--gpu", "a10", "--memory", "24")


LEAST = ("train.max_tokens_per_micro_batch=2048", "train.checkpoint_activations=full")


@pytest.mark.parametrize(
    ("name", "card", "overrides"),
    [
        ("llama8b_dpo_lora", "rtx4090", ()),
        ("llama8b_kto_lora", "rtx4090", ()),
        ("llama8b_dpo_lora_48gb", "l40s", ()),
        ("llama8b_dpo_lora_80gb", "h100-80gb", ()),
        ("llama7b_hh", "h200", LEAST),
        ("llama7b_hh_sft", "h200", LEAST),
    ],
)
def test_headers_of_recipes_say_what_is_predicted(name: str, card: str, overrides: tuple[str, ...]) -> None:
    found = facts(name, *overrides, "--gpu", card)
    text = find(name).read_text()

    assert found["fits"] and found["setup"]["is_checkpointed"]
    assert "predicted by dpo plan, not run" in text
    stated = re.search(r"GB: (\d+) of its ([\d.]+) GiB", text)
    if stated is None:
        assert "as llama8b_dpo_lora" in text
        return
    assert int(stated[1]) == round(found["bytes"]["total"] / 2**30)
    assert float(stated[2]) == pytest.approx(found["device"]["memory"] / 2**30, abs=1)
