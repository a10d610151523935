"""Render chat templates: what the model sees, within a time limit, every failure with its row."""

from __future__ import annotations

import inspect
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from dpo_cli.data.tokenize.thinking import marks_of, without_blocks
from dpo_cli.data.tokenize.turns import UNSCORED
from dpo_cli.errors import ModelError
from dpo_cli.types import Example, Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LIMIT_S = 5.0
MARKER = "qzxjkvw"
"""A text that no template writes by itself."""
FAILS = "the chat template fails: "
SYSTEM_ROLES = ("system", "developer")
PROBED_ROWS = 8
T = TypeVar("T")


class SystemLost(ModelError):
    """A template that refuses system prompts or leaves them out."""


@dataclass(frozen=True)
class Renderer:
    """A tokenizer's chat template together with the recipe's arguments for it."""

    tokenizer: PreTrainedTokenizerBase
    system: str | None = None
    """System prompt for conversations without one."""
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Template arguments; a row's own win."""
    merge_system: bool = False
    """Whether system prompts are put in front of the first user turn."""

    def prompt(self, example: Example) -> list[Message]:
        """Return the example's prompt messages, with the system prompt in front if it has none."""
        turns = [turn for turn in example.prompt if not isinstance(turn, str)]
        if self.system is not None and not _has_system(turns):
            turns = [{"role": "system", "content": self.system}, *turns]
        return merged_system(turns) if self.merge_system else turns

    def answer_tail(self) -> str | None:
        """Return what the template writes behind the text of an answer; None where it fails on a plain one."""
        turns = [{"role": role, "content": MARKER} for role in ("user", "assistant")]
        try:
            text = self.render(Example(turns[:1], (turns[1:],), "chat template"), turns, is_open=False)
        except ModelError:
            return None
        _, found, tail = text.rpartition(MARKER)
        return tail if found else None

    def render(self, example: Example, turns: Sequence[Message], is_open: bool) -> str:
        """Return the text of a conversation; `is_open` ends it where the assistant would speak.

        Raises:
            ModelError: the template fails on this row.
        """
        return self._apply(example, turns, is_open, tokenize=False)

    def plain_ids(self, example: Example, turns: Sequence[Message], is_open: bool) -> list[int] | None:
        """Return the ids of a conversation whose content spells control tokens: such text becomes ordinary tokens.

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
            what = f"{FAILS}{' '.join(str(error).split())}"
            raise ModelError.of(
                example.source, what, "correct the row, or model.chat_template=PATH"
            ) from error


def keeps_control_text(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether messages that spell control tokens can be tokenised as text: from transformers 5.20 on.

    Older ones hand the argument on to the template and let the text become control tokens.
    """
    return "sanitize_control_tokens" in inspect.signature(tokenizer.apply_chat_template).parameters


def check_template(renderer: Renderer, examples: Sequence[Example], limit_s: float = LIMIT_S) -> None:
    """Try the template on a few examples before it is trusted with all.

    Raises:
        SystemLost: it refuses system prompts or leaves them out.
        ModelError: there is none, it fails on each of them, takes longer than the limit, doubles the BOS token or does not open the answer.
    """
    if not renderer.tokenizer.chat_template:
        what = "the data are chat messages, but the tokenizer has no chat template"
        raise ModelError.of(
            examples[0].source, what, "model.chat_template=PATH, or an instruction-tuned model.name"
        )
    with_system = [example for example in examples if _has_system(renderer.prompt(example))]
    if with_system:
        _within(limit_s, lambda: _check_system(renderer, with_system, len(examples)))
    found = _within(limit_s, lambda: _first_whole(renderer, examples[:PROBED_ROWS]))
    _check_bos(renderer.tokenizer, *found)
    _check_opening(renderer, found[0])


def _first_whole(renderer: Renderer, examples: Sequence[Example]) -> tuple[Example, str]:
    """Return the first example that the template takes, and its text; all are tried, for the time that they take.

    Raises:
        ModelError: it fails on each.
    """
    found: list[tuple[Example, str]] = []
    errors: list[ModelError] = []
    for example in examples:
        completion = [turn for turn in example.completions[0] if not isinstance(turn, str)]
        try:
            renderer.render(example, renderer.prompt(example), is_open=True)
            text = renderer.render(example, [*renderer.prompt(example), *completion], is_open=False)
            found.append((example, text))
        except ModelError as error:
            errors.append(error)
    if not found:
        raise errors[0]
    return found[0]


def _within(limit_s: float, work: Callable[[], T]) -> T:
    """Run in a thread that is left behind when it takes too long: an endless loop in a template cannot be interrupted."""
    results: list[T] = []
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


def _has_system(turns: Sequence[Message]) -> bool:
    return turns[0]["role"] in SYSTEM_ROLES


def merged_system(turns: Sequence[Message]) -> list[Message]:
    """Return turns that start with a system prompt with it in front of the first user turn, an empty line between."""
    if not _has_system(turns):
        return [*turns]
    system, *rest = turns
    if rest and rest[0]["role"] == "user":
        return [{**rest[0], "content": f"{system['content']}\n\n{rest[0]['content']}"}, *rest[1:]]
    return [{**system, "role": "user"}, *rest]


def _check_system(renderer: Renderer, examples: Sequence[Example], n: int) -> None:
    """Check that the template writes system prompts, and those of a developer.

    Args:
        renderer: the template.
        examples: those with such a prompt.
        n: how many examples there are.

    Raises:
        SystemLost: it fails on one, though not once it is merged, or leaves it out.
    """
    for role in SYSTEM_ROLES:
        found = [example for example in examples if renderer.prompt(example)[0]["role"] == role]
        lost = (_lost_system(renderer, example) for example in found[:PROBED_ROWS])
        how = next((how for how in lost if how is not None), "")
        if how:
            has = f"{len(found):,} of {n:,} rows have a {role} prompt, which the chat template {how}"
            fix = (
                "data.merge_system=true puts it in front of the first user turn; "
                "or model.chat_template=PATH of a template that writes it"
            )
            fix += ", or data.system=null" if renderer.system is not None else ""
            raise SystemLost.of(found[0].source, has, fix)


def _lost_system(renderer: Renderer, example: Example) -> str | None:
    """Return how the template loses a system prompt; empty where it writes it, None where it fails on the row in any case."""
    first, *rest = renderer.prompt(example)
    turns = [{**first, "content": MARKER}, *rest]
    try:
        text = renderer.render(example, turns, is_open=True)
        return "" if MARKER in text else f"leaves out; the model would see {text[:80]!r}"
    except ModelError as error:
        reason = error.problems[0].what.removeprefix(FAILS)
    try:
        renderer.render(example, merged_system(turns), is_open=True)
    except ModelError:
        return None
    return f"refuses ({reason})"


def _check_opening(renderer: Renderer, example: Example) -> None:
    """Check that the template opens the answer where it is asked to, so that what it writes before an answer is no part of it.

    One that opens it in part, for the model to choose a channel or to think, is as it should be.

    Raises:
        ModelError: it does not.
    """
    prompt = renderer.prompt(example)
    opened = renderer.render(example, prompt, is_open=True)
    try:
        closed = renderer.render(example, prompt, is_open=False)
        whole = renderer.render(example, [*prompt, {"role": "assistant", "content": MARKER}], is_open=False)
    except ModelError:
        return
    before, found, _ = whole.partition(MARKER)
    opening = without_blocks(before.removeprefix(opened), marks_of(renderer.tokenizer))
    if opened == closed and found and before.startswith(opened) and opening.strip():
        what = (
            f"the chat template does not open the answer: {opening!r} would be scored as part of every answer, "
            "and a server would leave it to the model"
        )
        written = json.dumps(opening, ensure_ascii=False)
        end = "{% if add_generation_prompt %}{{ " + written + " }}{% endif %}"
        raise ModelError.of(example.source, what, f"model.chat_template=PATH of a copy that ends with {end}")
