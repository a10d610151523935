"""Why a row is not trained on, or not as it stands: the names under which rows are counted."""

from __future__ import annotations

from enum import IntFlag, StrEnum


class Reason(StrEnum):
    """One reason to drop a row; the value is what the user reads."""

    IDENTICAL = "identical completions"
    EMPTY = "empty completion"
    NULL = "null in a column that is read (skip_null)"
    PROMPTS_DIFFER = "prompts differ"
    PROMPT_ENDS_WITH_ANSWER = "prompt ends with an answer"
    CONTROL_TEXT = "special-token text that this tokenizer, or transformers before 5.20, cannot keep plain"
    PROMPT_REWRITTEN = "template rewrites the prompt when an answer follows"
    REFUSED = "the chat template refuses the conversation"
    UNWRITTEN = "the chat template leaves out an answer, or some of it"
    LONG_PROMPT = "prompt >= data.max_length"
    LONG_COMPLETION = "completion beyond data.max_length"
    SAME_AFTER_CUT = "same after truncation"
    NOTHING_SCORED = "no scored token left"
    NO_COMMON_PROMPT = "no prompt token in common"
    TIE = "a tie: no completion is better"
    NEITHER = "neither wanted nor unwanted"
    SMALL_GAP = "score gap below min_gap"
    ALONE = "a single completion: nothing to compare"


class Note(IntFlag):
    """What was done to a row that is kept."""

    BOUNDARY = 1
    """The prompt's last tokens differ once an answer follows; they are context in every completion."""
    CUT = 2
    """Truncated to `data.max_length`."""
    END_LOST = 4
    """A completion lost its end token to truncation."""
    END_ADDED = 8
    """The template closes an answer with no end token, so the tokenizer's own was added."""
    TURN_UNSCORED = 16
    """The template rewrites an earlier answer of a multi-turn completion; that turn is context."""
    LAST_LOST = 32
    """A multi-turn completion lost all of its last answer to truncation, and kept an earlier one."""
    THOUGHTS_SCORED = 64
    """Think blocks in the answers, scored like the rest."""
    THOUGHTS_CONTEXT = 128
    """Think blocks in the answers, read and not scored."""
    THOUGHTS_REMOVED = 256
    """Think blocks that were removed before the template saw them."""
    THOUGHTS_LOST = 512
    """Think blocks in the data that the template leaves out."""
    EMPTY_THOUGHT = 1024
    """The template writes an empty think block into an answer, which is scored."""
    TOOLS_UNWRITTEN = 2048
    """Tools that the template leaves out."""
    CALLS_UNWRITTEN = 4096
    """Calls of tools, around the answers, that the template leaves out."""
    TURN_UNWRITTEN = 8192
    """Messages, around the answers, that the template leaves out."""
