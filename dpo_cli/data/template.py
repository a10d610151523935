"""Render chat templates: what the model sees, within a time limit, every failure with its row."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dpo_cli.data.turns import UNSCORED
from dpo_cli.errors import ModelError
from dpo_cli.types import Example, Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LIMIT_S = 5.0
PROBED_ROWS = 8


@dataclass(frozen=True)
class Renderer:
    """A tokenizer's chat template together with the recipe's arguments for it."""

    tokenizer: PreTrainedTokenizerBase
    system: str | None = None
    """System prompt for conversations without one."""
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Template arguments; a row's own win."""

    def prompt(self, example: Example) -> list[Message]:
        """Give the example's prompt messages, with the system prompt in front if it has none."""
        turns = [turn for turn in example.prompt if not isinstance(turn, str)]
        if self.system is None or turns[0]["role"] in ("system", "developer"):
            return turns
        return [{"role": "system", "content": self.system}, *turns]

    def render(self, example: Example, turns: Sequence[Message], is_open: bool) -> str:
        """Give the text of a conversation; `is_open` ends it where the assistant would speak.

        Raises:
            ModelError: the template fails on this row.
        """
        return self._apply(example, turns, is_open, tokenize=False)

    def plain_ids(self, example: Example, turns: Sequence[Message], is_open: bool) -> list[int] | None:
        """Give the ids of a conversation whose content spells control tokens: such text becomes ordinary tokens.

        None where the tokenizer cannot express it as text.

        Raises:
            ModelError: the template fails on this row.
        """
        self.render(example, turns, is_open)
        if not keeps_control_text(self.tokenizer):
            return None
        try:
            return self._apply(
                example, turns, is_open, tokenize=True, sanitize_control_tokens=True, return_dict=False
            )
        except ModelError:
            return None

    def _apply(self, example: Example, turns: Sequence[Message], is_open: bool, **options: Any) -> Any:
        # A template is code and fails in any of code's ways.
        import jinja2

        try:
            return self.tokenizer.apply_chat_template(
                [{key: value for key, value in turn.items() if key != UNSCORED} for turn in turns],
                tools=[dict(tool) for tool in example.tools] if example.tools else None,
                add_generation_prompt=is_open,
                **options,
                **{**self.kwargs, **example.template_kwargs},
            )
        except (jinja2.TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
            what = f"the chat template fails: {' '.join(str(error).split())}"
            raise ModelError.of(example.source, what, "mend the row, or model.chat_template=PATH") from error


def keeps_control_text(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether messages that spell control tokens can be tokenised as text: from transformers 5.20 on.

    Older ones hand the argument on to the template and let the text become control tokens.
    """
    return "sanitize_control_tokens" in inspect.signature(tokenizer.apply_chat_template).parameters


def check_template(renderer: Renderer, examples: Sequence[Example], limit_s: float = LIMIT_S) -> None:
    """Try the template on a few examples before it is trusted with all.

    Raises:
        ModelError: there is none, it fails or takes longer than the limit, it doubles the BOS token or drops system prompts.
    """
    if not renderer.tokenizer.chat_template:
        what = "the data are chat messages, but the tokenizer has no chat template"
        raise ModelError.of(
            examples[0].source, what, "model.chat_template=PATH, or an instruction-tuned model.name"
        )
    probe = list(examples[:PROBED_ROWS])
    texts: list[str] = _within(limit_s, lambda: [_whole(renderer, example) for example in probe])
    _check_bos(renderer.tokenizer, probe[0], texts[0])
    with_system = next((e for e in examples if renderer.prompt(e)[0]["role"] == "system"), None)
    if with_system is not None:
        _check_system(renderer, with_system)


def _whole(renderer: Renderer, example: Example) -> str:
    completion = [turn for turn in example.completions[0] if not isinstance(turn, str)]
    renderer.render(example, renderer.prompt(example), is_open=True)
    return renderer.render(example, [*renderer.prompt(example), *completion], is_open=False)


def _within(limit_s: float, work: Callable[[], list[str]]) -> list[str]:
    """Run in a thread that is left behind when it takes too long: an endless loop in a template cannot be interrupted."""
    results: list[list[str]] = []
    errors: list[ModelError] = []

    def run() -> None:
        try:
            results.append(work())
        except ModelError as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True, name="chat-template")
    thread.start()
    thread.join(limit_s)
    if thread.is_alive():
        what = f"rendering {PROBED_ROWS} rows took more than {limit_s:g} s; a loop that does not end?"
        raise ModelError.of("chat template", what, "model.chat_template=PATH")
    if errors:
        raise errors[0]
    return results[0]


def _check_bos(tokenizer: PreTrainedTokenizerBase, example: Example, text: str) -> None:
    ids = tokenizer(text, add_special_tokens=False).input_ids[:8]
    bos = tokenizer.bos_token_id
    if bos is not None and ids[:2] == [bos, bos]:
        what = f"the chat template doubles the BOS token: ids {ids} start with {tokenizer.bos_token!r} twice"
        raise ModelError.of(
            example.source, what, "model.chat_template=PATH of a template that writes it once"
        )


def _check_system(renderer: Renderer, example: Example) -> None:
    marker = "qzxjkvw"
    _, *rest = renderer.prompt(example)
    turns = [{"role": "system", "content": marker}, *rest]
    text = renderer.render(example, turns, is_open=True)
    if marker not in text:
        ids = renderer.tokenizer(text, add_special_tokens=False).input_ids[:16]
        what = f"the chat template drops the system prompt; the model would see ids {ids}..., {text[:80]!r}"
        fix = "model.chat_template=PATH" + (
            ", or data.system=null" if renderer.system is not None else ", or rows without one"
        )
        raise ModelError.of(example.source, what, fix)
