"""`dpo export`: a run's model as one whole folder that any server loads, checked against the run before it is named finished."""

from __future__ import annotations

import json
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from dpo_cli.data.tokenize.tokenizer import load_tokenizer
from dpo_cli.errors import ModelError, StorageError
from dpo_cli.export.gguf_file import rope_of, unwritable, write_gguf
from dpo_cli.export.usage import as_whole
from dpo_cli.modeling.adapters import merged
from dpo_cli.modeling.hub import Start, model_start
from dpo_cli.modeling.load import load_model, load_reward_model
from dpo_cli.modeling.multimodal import copy_processor
from dpo_cli.modeling.reward_head import is_reward_model
from dpo_cli.modeling.silence_transformers import quiet
from dpo_cli.recipe.schema import Data, Model
from dpo_cli.runs.folder import recipe_of

Target = Literal["merged", "vllm", "gguf", "lm-eval", "alpaca-eval"]

LOGITS = 1e-4
"""Largest difference of a logit between the run's model and the exported one, in fp32."""
CHAT = [
    {"role": "user", "content": "Name three colours, and say which one is the sky's."},
    {"role": "assistant", "content": "Red, green and blue; the sky is blue."},
    {"role": "user", "content": "Thanks! Und auf Deutsch?\n\n```python\nprint('ü')\n```"},
]
"""What both templates render: turns, line breaks, code, letters beyond ASCII."""


@dataclass(frozen=True)
class Exported:
    """A folder that was written, and what was found equal."""

    folder: Path
    dtype: str
    largest_logit: float
    """Largest difference of a logit on the chat below; at most `LOGITS` in fp32."""
    n_ids: int
    """Token ids of that chat, the same by both templates; 0 where there is no chat template."""
    command: str
    """What to type next; empty where nothing follows."""
    gguf: Path | None = None
    """The GGUF file in that folder, where one was asked for and could be written."""
    note: str = ""
    """Why there is none."""

    def lines(self) -> list[str]:
        """Return what was written and checked."""
        parity = (
            f"{self.n_ids} token ids of a chat, the same as in training" if self.n_ids else "no chat template"
        )
        lines = [
            f"model    {self.folder} ({self.dtype})",
            f"checked  logits within {self.largest_logit:.1e} of the run's; {parity}",
        ]
        lines += [f"gguf     {self.gguf}"] if self.gguf else []
        lines += [f"note     {self.note}"] if self.note else []
        return lines + ([f"next     {self.command}"] if self.command else [])


def export(name: str, target: Target, out: Path, dtype: str) -> Exported:
    """Write a run's or a folder's model as one whole folder, adapters merged into their base.

    Args:
        name: a run's folder, a model's or an adapter's, or a hub id.
        target: what it is for; decides the command to type next.
        out: the folder to write; it must not exist.
        dtype: `fp32` or `bf16`.

    Raises:
        ModelError: it cannot be loaded, a reward model is asked to answer, or the written folder computes something else.
        StorageError: the folder exists, or cannot be written.
    """
    if out.exists():
        raise StorageError.of(str(out), "exists already", "another --out, or remove it first")
    start = model_start(name, None, weights=True)
    tokenizer = load_tokenizer(Model(name=str(start.tokenizer)))
    is_reward = _is_reward(start)
    if is_reward and target not in ("merged", "vllm"):
        raise ModelError.of(name, f"a reward model gives scores, not answers for {target}", "--to merged")
    model = _whole(start, tokenizer, is_reward)
    before = _logits(model, tokenizer)
    # What cannot be written here is left to llama.cpp's own converter.
    why_not = unwritable(model, tokenizer) if target == "gguf" else None
    file = f"{out.name}.gguf" if target == "gguf" and why_not is None else None
    temporary = out.with_name(f".tmp-{out.name}")
    try:
        _write(model, tokenizer, start, temporary, dtype)
        if file is not None:
            write_gguf(model, tokenizer, temporary / file, dtype, out.name)
        # transformers' reader knows nothing of factors on rotary frequencies.
        is_readable_back = file is not None and rope_of(model)["rope_type"] == "default"
        del model
        difference, n_ids = _checked(temporary, tokenizer, is_reward, before, dtype)
        if file is not None and is_readable_back:
            difference = max(difference, _gguf_difference(temporary, file, tokenizer, before, dtype))
        temporary.rename(out)
    except (OSError, SafetensorError) as error:
        raise StorageError.of(
            str(out), f"not written: {error}", "free some space, or another --out"
        ) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    command = f"llama-server -m {out / file} --jinja" if file else _command(target, out, dtype, is_reward)
    notes = [f"no GGUF file was written here: {why_not}"] if why_not else []
    if recipe := recipe_of(name):
        notes += _given(recipe.data)
        if target == "vllm" and recipe.data.chat_template_kwargs and not is_reward:
            stated = json.dumps(recipe.data.chat_template_kwargs)
            command += f" --default-chat-template-kwargs {shlex.quote(stated)}"
    return Exported(out, dtype, difference, n_ids, command, out / file if file else None, "; ".join(notes))


def _given(data: Data) -> list[str]:
    """Return what training rendered prompts with that no server knows of itself."""
    lines = []
    if data.chat_template_kwargs:
        lines.append(f"the template was given {json.dumps(data.chat_template_kwargs)} in training")
    if data.system:
        lines.append(f"prompts had this system prompt in training: {json.dumps(data.system)}")
    if data.merge_system:
        lines.append(
            "system prompts were put in front of the first user turn in training (data.merge_system)"
        )
    return lines


def _is_reward(start: Start) -> bool:
    if start.adapter is not None:
        stated = json.loads((start.adapter / "adapter_config.json").read_text())
        return bool(stated.get("task_type") == "SEQ_CLS")
    architectures = json.loads((start.base / "config.json").read_text()).get("architectures") or []
    return any(str(each).endswith("ForSequenceClassification") for each in architectures)


def _whole(start: Start, tokenizer: PreTrainedTokenizerBase, is_reward: bool) -> PreTrainedModel:
    """Load the model in fp32 and fold its adapter into the base's weights, which are the unquantised ones."""
    load = load_reward_model if is_reward else load_model
    model = load(start.base, len(tokenizer))
    if start.adapter is None:
        return model
    if is_reward:
        config: Any = model.config.get_text_config()
        config.pad_token_id = tokenizer.pad_token_id  # training's, which the base does not know
    return merged(model, start.adapter)


@torch.no_grad()
def _logits(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> torch.Tensor:
    ids = torch.tensor([_ids(tokenizer) or tokenizer(str(CHAT[0]["content"]))["input_ids"]])
    return model(input_ids=ids, use_cache=False).logits.float()


def _ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the ids of the chat as a server sends it; none without a template."""
    if not tokenizer.chat_template:
        return []
    rendered: Any = tokenizer.apply_chat_template(CHAT, add_generation_prompt=True, return_dict=True)
    return list(rendered["input_ids"])


def _write(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, start: Start, folder: Path, dtype: str
) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    model.config.use_cache = True
    with quiet():
        (model.to(torch.bfloat16) if dtype == "bf16" else model).save_pretrained(folder)  # type: ignore[arg-type]
        tokenizer.save_pretrained(folder)
        copy_processor(start.base, folder)
        stated = start.folder / "generation_config.json"
        if stated.is_file():
            GenerationConfig.from_pretrained(start.folder).save_pretrained(folder)
    card = start.folder / "README.md"
    if card.is_file():
        text = card.read_text(encoding="utf-8")
        if start.adapter is not None:
            text = as_whole(text, tokenizer, is_reward=is_reward_model(model))
        (folder / "README.md").write_text(text, encoding="utf-8")


def _checked(
    folder: Path, tokenizer: PreTrainedTokenizerBase, is_reward: bool, before: torch.Tensor, dtype: str
) -> tuple[float, int]:
    """Load what was written as a server does, and compare logits and template with the run's."""
    theirs = load_tokenizer(Model(name=str(folder)))
    if _ids(theirs) != _ids(tokenizer):
        what = "the exported chat template gives other token ids than training's"
        raise ModelError.of(str(folder), what, "please report it with the model's name")
    load = load_reward_model if is_reward else load_model
    difference = (_logits(load(folder, len(theirs)), theirs) - before).abs().max().item()
    if dtype == "fp32" and not difference <= LOGITS:
        what = f"the exported model's logits differ from the run's by {difference:.1e}"
        raise ModelError.of(str(folder), what, "please report it with the model's name")
    return difference, len(_ids(theirs))


def _gguf_difference(
    folder: Path, file: str, tokenizer: PreTrainedTokenizerBase, before: torch.Tensor, dtype: str
) -> float:
    """Read the GGUF file by transformers' own reader and compare logits with the run's."""
    with quiet():
        model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32).eval()
    difference = (_logits(model, tokenizer) - before).abs().max().item()
    if dtype == "fp32" and not difference <= LOGITS:
        what = f"the GGUF file's logits differ from the run's by {difference:.1e}"
        raise ModelError.of(str(folder / file), what, "please report it with the model's name")
    return difference


def _command(target: Target, out: Path, dtype: str, is_reward: bool) -> str:
    """Return the command line that takes the folder on; those programs are not installed with this one."""
    kind = "float32" if dtype == "fp32" else "bfloat16"
    commands: dict[Target, str] = {
        "merged": "",
        "vllm": f"vllm serve {out} --dtype {kind}{' --task reward' if is_reward else ''}",
        "gguf": f"python llama.cpp/convert_hf_to_gguf.py {out} --outtype {'f32' if dtype == 'fp32' else 'bf16'} --outfile {out}.gguf",
        "lm-eval": f"lm_eval --model hf --model_args pretrained={out},dtype={kind} --tasks ifeval --apply_chat_template",
        "alpaca-eval": f"alpaca_eval evaluate_from_model --model_configs {out}/alpaca_eval.yaml",
    }
    if target == "alpaca-eval":
        (out / "alpaca_eval.yaml").write_text(_alpaca(out, kind))
    return commands[target]


def _alpaca(out: Path, kind: str) -> str:
    return (
        f"{out.name}:\n  prompt_template: null\n  fn_completions: huggingface_local_completions\n  completions_kwargs:\n"
        f"    model_name: {out.resolve()}\n    model_kwargs: {{torch_dtype: {kind}}}\n    max_new_tokens: 2048\n    is_chatml_prompt: true\n"
        f"  pretty_name: {out.name}\n"
    )
