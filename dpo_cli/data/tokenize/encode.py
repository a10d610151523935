"""From examples to token groups: where the shared prompt ends, and which tokens of a completion are scored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dpo_cli.data.detect.parse import is_blank
from dpo_cli.data.row_notes import Note, Reason
from dpo_cli.data.tokenize.renderings import Answer, Sheet, Unfit, View, chat_sheet, text_sheet
from dpo_cli.data.tokenize.template import FAILS, Renderer, check_template
from dpo_cli.data.tokenize.thinking import blocks, is_marked, marks_of, thinks, without_thoughts
from dpo_cli.data.tokenize.tokenizer import Vocabulary
from dpo_cli.data.tokenize.truncate import Encoded, fit
from dpo_cli.data.tokenize.unwritten import Unwritten
from dpo_cli.errors import ModelError
from dpo_cli.types import Example, TokenGroup

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from dpo_cli.recipe.schema import Data

CHUNK_ROWS = 512
"""Rows tokenised in one call: enough to keep the tokenizer's threads busy."""


class _Way(NamedTuple):
    """How a text is tokenised."""

    adds_own: bool
    """Whether the tokenizer adds the tokens that it adds to raw text, such as a BOS."""
    reads_control: bool
    """Whether what spells a control token becomes one."""


class Encoder:
    """A tokenizer with the recipe's data settings.

    Chat messages go through the template, whose BOS is the only one; raw text gets the BOS that the tokenizer would
    add, and an end token. Text within the data that spells a control token stays text.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, config: Data, *, whole_rows: bool = False) -> None:
        """Take the settings.

        Args:
            tokenizer: from `load_tokenizer`.
            config: the recipe's data group.
            whole_rows: end a chat where `apply_chat_template` ends it, often a line break behind the last end token, not at that token:
                a reward model reads its score at the last token it is given.
        """
        self.tokenizer = tokenizer
        self.config = config
        self.whole_rows = whole_rows
        self.renderer = Renderer(tokenizer, config.system, config.chat_template_kwargs, config.merge_system)
        self.marks = marks_of(tokenizer)
        self.vocabulary = Vocabulary(tokenizer, config.control_tokens)
        self.unwritten = Unwritten(self.renderer)

    def encode(
        self, examples: Sequence[Example], advance: Callable[[int], None] | None = None
    ) -> list[Encoded]:
        """Return each example as a token group within `max_length`, or the reason why it is dropped.

        Args:
            examples: messages or text, also mixed.
            advance: called with how many more rows are done.

        Raises:
            ModelError: no chat template for messages, or one that fails (see `check_template`).
        """
        if chats := [example for example in examples if not isinstance(example.prompt, str)]:
            check_template(self.renderer, chats)
        results: list[Encoded] = []
        for start in range(0, len(examples), CHUNK_ROWS):
            chunk = examples[start : start + CHUNK_ROWS]
            results += self._encode_chunk(chunk)
            if advance:
                advance(len(chunk))
        return results

    def serving_prompt(self, example: Example) -> tuple[str, list[int]]:
        """Return what a server sends the model for this example's prompt: text and ids, not truncated.

        Raises:
            ModelError: the template fails.
        """
        example = self._prepared(example)
        sheet = self._sheet(example)
        assert isinstance(sheet, Sheet), f"kept rows have a sheet, {example.source} has none: {sheet}"
        (ids, whole, *_), *_ = self._ids([sheet], [example])
        return sheet.views[0].text, (ids if len(ids) else whole[:1]).tolist()

    def refusal(self, example: Example) -> str:
        """Return what the template says of a row that it refuses."""
        example = self._prepared(example)
        try:
            chat_sheet(example, self.renderer, has_control_text=False, unwritten=self.unwritten)
        except ModelError as error:
            return error.problems[0].what.removeprefix(FAILS)
        raise AssertionError(f"{example.source} is refused, and rendered without an error")

    def _prepared(self, example: Example) -> Example:
        """Return the example as it is rendered: without thoughts where the recipe drops them."""
        return without_thoughts(example, self.marks) if self.config.thinking == "drop" else example

    def _encode_chunk(self, given: Sequence[Example]) -> list[Encoded]:
        examples = [self._prepared(example) for example in given]
        sheets = [self._sheet(example) for example in examples]
        good = [
            (sheet, example)
            for sheet, example in zip(sheets, examples, strict=True)
            if isinstance(sheet, Sheet)
        ]
        ids = iter(self._ids([sheet for sheet, _ in good], [example for _, example in good]))
        results = [
            self._group(example, sheet, next(ids)) if isinstance(sheet, Sheet) else Encoded(None, sheet)
            for sheet, example in zip(sheets, examples, strict=True)
        ]
        return [
            result if example is whole else result._replace(notes=result.notes | Note.THOUGHTS_REMOVED)
            for result, example, whole in zip(results, examples, given, strict=True)
        ]

    def _sheet(self, example: Example) -> Sheet | Reason:
        if self.config.thinking == "drop" and any(map(is_blank, example.completions)):
            return Reason.EMPTY  # nothing but a thought
        is_text = isinstance(example.prompt, str)
        prompt = example.prompt if is_text else self.renderer.prompt(example)
        content = (prompt, example.completions, example.tools, dict(example.template_kwargs))
        has_control_text = self.vocabulary.spells_control(content)
        if has_control_text and self.vocabulary.spells_meant(content):
            return Reason.CONTROL_TEXT  # a tokenizer takes all for tokens, or none
        if is_text:
            return text_sheet(example)
        try:
            return chat_sheet(example, self.renderer, has_control_text, self.unwritten)
        except Unfit as unfit:
            return unfit.reason
        except ModelError:
            return Reason.REFUSED

    def _ids(self, sheets: Sequence[Sheet], examples: Sequence[Example]) -> list[list[np.ndarray]]:
        """Tokenise the views of many sheets with one call for each way to do so."""
        found: dict[int, list[int]] = {}
        ways = [self._way(example) for example in examples]
        for way in set(ways):
            sheets_of_way = (sheet for sheet, its in zip(sheets, ways, strict=True) if its == way)
            views = [view for sheet in sheets_of_way for view in sheet.views if view.ids is None]
            rows = self._tokenize([view.text for view in views], way)
            found |= {id(view): ids for view, ids in zip(views, rows, strict=True)}
        return [[np.asarray(_of(view, found), dtype=np.int32) for view in sheet.views] for sheet in sheets]

    def _way(self, example: Example) -> _Way:
        # A template writes its own BOS and control tokens; raw text has none of its own, whatever it spells, unless they are meant.
        if not isinstance(example.prompt, str):
            return _Way(adds_own=False, reads_control=True)
        return _Way(
            adds_own=True, reads_control=self.vocabulary.spells_meant((example.prompt, example.completions))
        )

    def _tokenize(self, texts: list[str], way: _Way) -> list[list[int]]:
        if not texts:
            return []
        options = {} if way.reads_control else {"split_special_tokens": True}
        encoded = self.tokenizer(
            texts, add_special_tokens=way.adds_own, return_attention_mask=False, verbose=False, **options
        )
        return encoded["input_ids"]

    def _group(self, example: Example, sheet: Sheet, ids: list[np.ndarray]) -> Encoded:
        shared = common_prefix(ids[0], *(ids[whole] for whole, _ in sheet.completions))
        if shared == 0 and not example.prompt:
            shared = 1  # plain text without a BOS: its first token has nothing before it to be predicted from
        if shared == 0:
            return Encoded(None, Reason.NO_COMMON_PROMPT)
        notes = sheet.notes | (Note.BOUNDARY if shared < len(ids[0]) else Note(0))
        completions, masks = [], []
        for whole, answers in sheet.completions:
            is_whole = self.whole_rows and not isinstance(example.prompt, str)
            tokens, mask, more = self._score(ids, whole, answers, is_whole)
            if is_marked(sheet.views[whole].text, self.marks):
                more |= self._score_thoughts(tokens, mask)
            completions.append(tokens[shared:])
            masks.append(mask[shared:])
            notes |= more
        if isinstance(example.prompt, str):
            notes &= ~Note.END_ADDED
        if not notes & (Note.THOUGHTS_SCORED | Note.THOUGHTS_CONTEXT) and any(
            thinks(completion, self.marks) for completion in example.completions
        ):
            notes |= Note.THOUGHTS_LOST
        prompt = ids[sheet.completions[0][0]][:shared]
        group = TokenGroup(prompt, tuple(completions), tuple(masks), example.source)
        return fit(group, notes, self.config, self.tokenizer.bos_token_id)

    def _score(
        self, ids: list[np.ndarray], whole: int, answers: list[Answer], is_whole: bool
    ) -> tuple[np.ndarray, np.ndarray, Note]:
        """Return a conversation up to its last answer's end token, or all of it, the mask of its answers, and notes."""
        tokens, notes, stop = ids[whole], Note(0), 0
        mask = np.zeros(len(tokens), dtype=bool)
        for answer in answers:
            start = common_prefix(ids[answer.start], tokens)
            end = len(tokens) if answer.end == whole else common_prefix(ids[answer.end], tokens)
            stop = self._end_of_answer(tokens, start, end)
            mask[start:stop] = True
            if stop <= start:
                notes |= Note.TURN_UNSCORED
        if is_whole:
            return tokens, mask, notes
        tokens, mask = tokens[:stop], mask[:stop]
        if not self._can_end(tokens[-1]):
            tokens = np.append(tokens, np.int32(self.tokenizer.eos_token_id))
            mask, notes = np.append(mask, True), notes | Note.END_ADDED
        return tokens, mask, notes

    def _score_thoughts(self, tokens: np.ndarray, mask: np.ndarray) -> Note:
        """Take think blocks out of the mask of a conversation's answers, unless the recipe keeps them; return what was found."""
        notes, is_kept = Note(0), self.config.thinking == "keep"
        edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]])))
        for start, stop in edges.reshape(-1, 2).tolist():
            pieces = [self.vocabulary.piece(token) for token in tokens[start:stop].tolist()]
            ends = np.cumsum([len(piece) for piece in pieces])
            for block in blocks("".join(pieces), self.marks):
                first, last = np.searchsorted(ends, [block.start, block.stop - 1], side="right")
                if not is_kept:
                    mask[start + first : start + last + 1] = False
                elif block.is_empty:
                    notes |= Note.EMPTY_THOUGHT
                if not block.is_empty:
                    notes |= Note.THOUGHTS_SCORED if is_kept else Note.THOUGHTS_CONTEXT
        return notes

    def _end_of_answer(self, tokens: np.ndarray, start: int, end: int) -> int:
        """Return the position behind an answer's end token, without what the template writes after it.

        Behind an answer stand control tokens and white space. The end is the token that the template writes behind a plain answer; where
        that is not there, the first control token: one before it belongs to what is said, as the end of a tool call does.
        """
        stop = at = end
        own: int | None = None
        while at > start and (self._can_end(tokens[at - 1]) or self.vocabulary.is_blank(int(tokens[at - 1]))):
            at -= 1
            if self._can_end(tokens[at]):
                stop = at + 1
                own = stop if int(tokens[at]) in self._ends else own
        return stop if own is None else own

    @cached_property
    def _ends(self) -> frozenset[int]:
        """The end token, and the first control token that the template writes behind a plain answer."""
        tail = self.renderer.answer_tail() if self.tokenizer.chat_template else None
        ids = self.tokenizer(tail, add_special_tokens=False).input_ids if tail else []
        first = next((int(token) for token in ids if self.vocabulary.can_end(int(token))), None)
        return frozenset(
            {self.tokenizer.eos_token_id} if first is None else {first, self.tokenizer.eos_token_id}
        )

    def _can_end(self, token: np.int32) -> bool:
        return self.vocabulary.can_end(int(token))


def common_prefix(first: np.ndarray, *others: np.ndarray) -> int:
    """Return how many leading ids all arrays share."""
    length = len(first)
    for other in others:
        length = min(length, len(other))
        if (differ := np.flatnonzero(first[:length] != other[:length])).size:
            length = int(differ[0])
    return length


def _of(view: View, found: dict[int, list[int]]) -> list[int]:
    return found[id(view)] if view.ids is None else view.ids
