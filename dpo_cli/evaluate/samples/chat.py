"""`dpo chat`: a conversation with a trained model, and with what it was before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.generation.streamers import TextStreamer

from dpo_cli.data.tokenize.template import merged_system
from dpo_cli.data.tokenize.tokenizer import load_tokenizer
from dpo_cli.engine.generate import stop_ids
from dpo_cli.engine.open_model import load_start
from dpo_cli.errors import ModelError, RecipeError
from dpo_cli.modeling.hub import model_start
from dpo_cli.recipe.schema import Model
from dpo_cli.runs.folder import recipe_of

Turn = dict[str, str]


@dataclass(eq=False)
class Speaker:
    """A model that answers, and the conversation as it knows it."""

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    turns: list[Turn]
    template_kwargs: dict[str, Any] = field(default_factory=dict)
    """What the template is given beside the turns."""
    merge_system: bool = False
    """Whether the system prompt is put in front of the first question, as in training."""

    def answer(self, config: GenerationConfig, seed: int, write: Callable[[str], None]) -> str:
        """Answer the last turn, handing on text as it comes; give all of it."""
        turns: Any = merged_system(self.turns) if self.merge_system else self.turns
        rendered: Any = self.tokenizer.apply_chat_template(
            turns,
            add_generation_prompt=True,
            return_dict=True,
            return_tensors="pt",
            **self.template_kwargs,
        )
        ids = rendered["input_ids"].to(self.model.device)
        torch.manual_seed(seed)
        generate: Any = self.model.generate
        with torch.no_grad():
            out = generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                generation_config=config,
                streamer=_Lines(self.tokenizer, write),
            )
        text = str(self.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)).strip()
        self.turns.append({"role": "assistant", "content": text})
        return text


class _Lines(TextStreamer):
    """transformers' streamer with another end: text goes to a function, not to the screen."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, write: Callable[[str], None]) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._write = write

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Hand on text that no later token changes."""
        self._write(text)


def speakers(name: str, against: str | None, system: str | None) -> list[Speaker]:
    """Load who answers: the model, and beside it what it is held against.

    Args:
        name: a run's folder, a model's, an adapter's, or a hub id.
        against: another one, or `reference`: the model that the run started from.
        system: a system prompt for all; None: that of the run's data, where `name` is a run. What its template was given, all are given.

    Raises:
        ModelError: it cannot be loaded, gives scores instead of answers, or has no chat template.
        RecipeError: `reference` of what is no run.
    """
    recipe = recipe_of(name)
    data = recipe.data if recipe else None
    system = system if system is not None or data is None else data.system
    names = {name: name} if against is None else {name: name, against: _meant(name, against)}
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    found = []
    for name, place in names.items():
        start = model_start(place, None, weights=True, key=name)
        tokenizer = load_tokenizer(Model(name=str(start.tokenizer)))
        if not tokenizer.chat_template:
            raise ModelError.of(name, "has no chat template", "a model that was made for conversations")
        model: PreTrainedModel = load_start(start, len(tokenizer)).to(device)  # type: ignore[arg-type]
        model.config.use_cache = True
        turns = [{"role": "system", "content": system}] if system else []
        kwargs, merges = (data.chat_template_kwargs, data.merge_system) if data else ({}, False)
        found.append(Speaker(name, model, tokenizer, turns, kwargs, merges))
    return found


def generation(speaker: Speaker, temperature: float, max_tokens: int) -> GenerationConfig:
    """Return how a speaker answers: greedily at temperature 0, until one of the tokens that its model says end an answer."""
    sampling: dict[str, Any] = {"temperature": temperature} if temperature > 0 else {}
    return GenerationConfig(
        do_sample=temperature > 0,
        max_new_tokens=max_tokens,
        eos_token_id=stop_ids(speaker.model, speaker.tokenizer),
        pad_token_id=speaker.tokenizer.eos_token_id,
        **sampling,
    )


def converse(
    everyone: Sequence[Speaker],
    question: str,
    temperature: float,
    max_tokens: int,
    seed: int,
    write: Callable[[str], None],
) -> None:
    """Ask everyone the same, one after the other; each goes on with its own conversation."""
    for speaker in everyone:
        if len(everyone) > 1:
            write(f"[{speaker.name}] ")
        speaker.turns.append({"role": "user", "content": question})
        speaker.answer(generation(speaker, temperature, max_tokens), seed, write)
        write("\n")


def _meant(name: str, against: str) -> str:
    if against != "reference":
        return against
    recipe = recipe_of(name)
    if recipe is None:
        raise RecipeError.of(
            "--against", f"'{name}' is no run that a reference belongs to", "a run's folder, or a model"
        )
    return recipe.reference.model or recipe.model.name
