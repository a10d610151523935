"""What a model folder must hold before anything is trained: real folders, damaged one at a time."""

from __future__ import annotations

import json
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dpo_cli.engine.generate import answers
from dpo_cli.errors import ModelError
from dpo_cli.modeling.load import load_model
from dpo_cli.modeling.model_folder import inspect_folder
from dpo_cli.modeling.precision import choose_precision, token_budget
from dpo_cli.modeling.scorer import Scorer, score
from dpo_cli.types import TokenGroup
from tests.fakes import byte_tokenizer, tiny_llama, write_model

VOCABULARY = 261


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("sound") / "model")


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(sound, tmp_path / "model"))


def refusal(folder: Path, check: Callable[[Path], object] = lambda f: load_model(f, VOCABULARY)) -> str:
    with pytest.raises(ModelError) as caught:
        check(folder)
    assert caught.value.code == 4
    assert all("\n" not in line for line in caught.value.lines())
    return str(caught.value)


def change_config(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def change_weights(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def test_a_model_loads_in_fp32_with_the_weights_of_its_file_and_says_nothing(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    change_config(folder, attention_dropout=0.1)
    change_weights(folder, lambda w: w.update({name: weight.bfloat16() for name, weight in w.items()}))

    model = load_model(folder, VOCABULARY)

    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert not model.training
    assert {layer.self_attn.attention_dropout for layer in model.model.layers} == {0.0}
    stored = load_file(folder / "model.safetensors")["lm_head.weight"]
    assert torch.equal(model.lm_head.weight, stored.float())
    assert capfd.readouterr() == ("", "")


def test_dropout_stays_where_the_recipe_keeps_it(folder: Path) -> None:
    change_config(folder, attention_dropout=0.1)

    model = load_model(folder, VOCABULARY, dropout=True)

    assert {layer.self_attn.attention_dropout for layer in model.model.layers} == {0.1}


def test_fault_070_a_folder_that_is_no_model(folder: Path) -> None:
    (folder / "config.json").unlink()

    assert "not a model folder: no config.json. Fix: point model.name" in refusal(folder)
    assert "no such model folder" in refusal(folder / "missing", inspect_folder)


@pytest.mark.parametrize("text", ["{", "[]", "{}", "\xff"])
def test_fault_070_a_config_that_cannot_be_read(folder: Path, text: str) -> None:
    (folder / "config.json").write_bytes(text.encode("latin-1"))

    assert f"{folder}/config.json: " in refusal(folder, inspect_folder)


def test_fault_075_a_tokenizer_larger_than_the_embedding(folder: Path) -> None:
    assert load_model(folder, 300) is not None
    told = refusal(folder, lambda f: load_model(f, 301))
    assert told == (
        f"{folder}: the tokenizer has 301 ids, the embedding 300 rows."
        " Fix: resize the embedding where tokens were added (`resize_token_embeddings`), or take the model's own tokenizer (model.tokenizer)"
    )


def test_fault_076_missing_weights_are_never_trained(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    change_weights(folder, lambda w: w.pop("lm_head.weight"))

    assert "weights are missing, they would be random: lm_head.weight (1 in all)" in refusal(folder)
    assert capfd.readouterr() == ("", ""), "transformers' own report is kept off the screen"


def test_fault_076_weights_without_a_place(folder: Path) -> None:
    change_weights(folder, lambda w: w.update({"score.weight": torch.zeros(1, 32)}))

    assert "weights that the model has no place for: score.weight (1 in all)" in refusal(folder)


def test_fault_076_weights_of_another_shape(folder: Path) -> None:
    change_config(folder, vocab_size=301)

    told = refusal(folder)

    assert "weights of another shape than config.json says: lm_head.weight [300, 32] for [301, 32]" in told


def test_fault_076_everything_wrong_with_the_weights_is_told_at_once(folder: Path) -> None:
    def break_thrice(weights: dict[str, Tensor]) -> None:
        weights["extra"] = torch.zeros(1)
        weights["model.norm.weight"][0] = torch.inf
        del weights["model.layers.0.mlp.up_proj.weight"]

    change_weights(folder, break_thrice)
    told = refusal(folder).splitlines()

    assert [line.partition(": ")[2].partition(":")[0] for line in told] == [
        "weights are missing, they would be random",
        "weights that the model has no place for",
        "weights are not finite",
    ]


def test_a_tied_head_is_not_missing(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "tied", tie_word_embeddings=True)
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")

    model = load_model(folder, VOCABULARY)

    assert model.lm_head.weight is model.model.embed_tokens.weight


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_fault_077_weights_that_are_not_finite_are_named(folder: Path, value: float) -> None:
    change_weights(folder, lambda w: w["model.layers.1.mlp.up_proj.weight"][3].fill_(value))

    assert "weights are not finite: model.layers.1.mlp.up_proj.weight" in refusal(folder)


def test_fault_078_an_architecture_that_is_not_known_or_no_causal_lm(folder: Path) -> None:
    change_config(folder, model_type="nosuch")
    assert "`nosuch`" in refusal(folder, inspect_folder)
    change_config(folder, model_type="t5")
    assert "T5Config is no causal language model" in refusal(folder, inspect_folder)


def test_fault_078_quantized_weights(folder: Path) -> None:
    change_config(folder, quantization_config={"quant_method": "gptq", "bits": 4})

    assert "the weights are quantized" in refusal(folder, inspect_folder)


@pytest.mark.parametrize("n_bytes", [0, 3, -1, -5000])
def test_a_weight_file_that_was_cut_short(folder: Path, n_bytes: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:n_bytes])

    assert f"{folder}: weights cannot be read" in refusal(folder)


def test_a_shard_that_is_not_there(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    shards = {"model.norm.weight": 1, "lm_head.weight": 2}
    index = {"weight_map": {name: f"model-0000{n}-of-00002.safetensors" for name, n in shards.items()}}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, **index}))

    assert "model-00002-of-00002.safetensors" in refusal(folder)


class _Marker:
    """Leaves a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


def test_fault_093_pickled_weights_are_refused_unread(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").unlink()
    marker = tmp_path / "marker"
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(_Marker(marker)))

    assert "no *.safetensors weights; pickled weights are not read" in refusal(folder)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("auto_map", {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}),
        ("_attn_implementation", "someone/kernel"),
        ("attn_implementation", "paged|someone/kernel@main"),
        ("_attn_implementation_internal", "someone/kernel"),
        ("text_config", {"auto_map": {"AutoConfig": "code.Config"}}),
    ],
)
def test_fault_094_a_model_that_brings_code_is_refused_and_the_code_not_run(
    folder: Path, tmp_path: Path, key: str, value: object
) -> None:
    marker = tmp_path / "marker"
    (folder / "code.py").write_text(f"open({str(marker)!r}, 'w')\n")
    change_config(folder, **{key: value})

    assert "the model brings its own code" in refusal(folder, inspect_folder)
    assert not marker.exists()


def test_an_ordinary_attention_name_is_no_code(folder: Path) -> None:
    change_config(folder, attn_implementation="eager")

    inspect_folder(folder)


@pytest.mark.parametrize("text", ['{"do_sample": false, "temperature": 0.5}', "{", "[]"])
def test_a_generation_config_that_could_not_be_saved_is_found_without_weights(
    folder: Path, text: str
) -> None:
    (folder / "generation_config.json").write_text(text)
    (folder / "model.safetensors").write_bytes(b"never read")

    assert re.search(r"generation_config\.json: .*Fix: fix the file", refusal(folder, inspect_folder))


def test_a_model_without_generation_config_is_fine(folder: Path) -> None:
    (folder / "generation_config.json").unlink()

    inspect_folder(folder)


@pytest.mark.parametrize("path", ["packed", "padded"])
def test_fault_071_no_pad_token_changes_nothing_lengths_decide(path: str) -> None:
    """Completions that end with, or hold, the very id that stands for padding, of very different lengths."""
    rng = np.random.default_rng(0)
    eos, spare = 4, 299
    completions = [
        np.append(rng.integers(5, 261, n), [eos, eos, 0, spare]).astype(np.int32) for n in (2, 40, 9)
    ]
    prompt = rng.integers(5, 261, 12).astype(np.int32)
    group = TokenGroup(prompt, tuple(completions), tuple(np.ones(len(ids), bool) for ids in completions))

    totals = []
    for pad in (eos, spare, 0, None):
        model = tiny_llama(pad_token_id=None)
        model.config.pad_token_id = pad
        scorer = Scorer(model, "packed" if path == "packed" else "padded")
        with torch.no_grad():
            totals.append(score(scorer, scorer.layout([group])).total)
    with torch.no_grad():
        alone = [_alone(tiny_llama(pad_token_id=None), prompt, ids) for ids in completions]

    assert all(torch.equal(total, totals[0]) for total in totals[1:])
    assert torch.allclose(totals[0], torch.stack(alone).float(), atol=1e-3)


def _alone(model: torch.nn.Module, prompt: np.ndarray, ids: np.ndarray) -> Tensor:
    row = torch.from_numpy(np.concatenate([prompt, ids])).long()[None]
    log_probs = model(input_ids=row, use_cache=False).logits[0].double().log_softmax(-1)
    return sum((log_probs[len(prompt) + i - 1, token] for i, token in enumerate(ids)), torch.tensor(0.0))


def test_answers_do_not_depend_on_their_batch_mates_and_say_nothing(
    capfd: pytest.CaptureFixture[str],
) -> None:
    model = tiny_llama()
    model.generation_config.do_sample, model.generation_config.temperature = True, 0.7
    scorer, tokenizer = Scorer(model, "packed"), byte_tokenizer()
    prompts = [tokenizer(text)["input_ids"] for text in ("one", "a much longer prompt", "x")]

    together = answers(scorer, tokenizer, prompts, max_new_tokens=8)
    alone = [answers(scorer, tokenizer, [prompt], max_new_tokens=8)[0] for prompt in prompts]

    assert together == alone
    assert scorer.path == "packed"
    assert capfd.readouterr() == ("", "")


def test_precision_is_what_was_asked_for_and_the_budget_holds_a_row() -> None:
    cpu = torch.device("cpu")

    assert [choose_precision(wanted, cpu) for wanted in ("fp32", "bf16")] == ["fp32", "bf16"]
    assert choose_precision("auto", cpu) in ("fp32", "bf16")
    assert 256 <= token_budget(tiny_llama(), cpu, "fp32") <= 2048
