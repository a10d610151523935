"""What people call the columns that formats read. For `dpo init`, which writes down what it takes; nothing trains on a guess."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

NAMES = {
    "prompt": "question query instruction input ask request user user_message user_prompt message context problem post body x",
    "completion": "response answer output reply generation assistant assistant_message model_output bot_response ideal y",
    "chosen": "preferred accepted accept better good win winning best chosen_response response_chosen answer_chosen chosen_answer "
    "preferred_response preferred_output positive response_j y_w yw winner winner_response winning_response",
    "rejected": "dispreferred non_preferred nonpreferred not_preferred reject worse bad lose losing loser worst rejected_response "
    "response_rejected answer_rejected rejected_answer dispreferred_response non_preferred_output negative response_k y_l yl",
    "winner": "preferred preference choice better best label labels verdict vote votes selected picked winning chosen_side overall_preference "
    "preference_strength judgement judgment result",
    "label": "thumb thumbs rating ratings feedback score stars vote reaction kto_tag helpful liked is_good thumbs_up sentiment verdict",
    "completions": "responses answers outputs candidates replies ranking ranked ranked_responses generations options output",
    "ratings": "scores stars rating score rewards reward pm_score overall_score annotations_scores",
    "messages": "conversation conversations dialog dialogue chat turns",
    "text": "document content body passage",
    "score_chosen": "chosen_score rating_chosen chosen_rating score_w reward_chosen chosen_reward",
    "score_rejected": "rejected_score rating_rejected rejected_rating score_l reward_rejected rejected_reward",
    "margin": "gap score_gap score_difference delta",
    "weight": "sample_weight row_weight",
    "system": "system_prompt system_message",
    "history": "context conversation conversations dialog dialogue previous previous_messages chat_history messages turns",
    "tools": "functions",
    "chat_template_kwargs": "",
}
"""A format's column -> other names, without case, spaces or dashes, the commonest first."""

GENERIC = {"text", "full_text", "content", "value", "string", "raw", "str", "messages", "message"}
"""Last parts of a path that say nothing: the part before them is the name."""
ANSWER_WORDS = {
    "answer", "answers", "response", "responses", "output", "outputs", "completion", "completions", "text", "option", "options", "candidate",
    "candidates", "reply", "summary", "summaries", "ref", "generation", "generations", "conversation", "message", "story", "translation",
    "a", "b", "left", "right", "first", "second", "assistant", "result", "sample", "continuation", "code", "solution", "choice",
}  # fmt: skip
RATING_WORDS = {
    "score", "scores", "rating", "ratings", "stars", "reward", "rewards", "grade", "grades", "points", "upvotes", "votes", "likes", "quality",
    "helpfulness", "elo", "preference",
}  # fmt: skip
RANK_WORDS = {"rank", "ranks", "ranking", "rankings", "place", "position", "order"}
LOW_WORDS = {
    "loss", "perplexity", "ppl", "nll", "error", "errors", "penalty", "toxicity", "severity", "harm", "harmfulness", "distance", "cost",
    "mistakes", "faults",
}  # fmt: skip
"""Words of a number of which less is usually better; never taken without a question."""
META_WORDS = {
    "model", "models", "policy", "policies", "source", "sources", "id", "ids", "name", "names", "hash", "sha", "sha256", "tokens", "token",
    "length", "len", "count", "num", "time", "date", "created", "updated", "at", "type", "category", "lang", "language", "url", "split",
    "dataset", "author", "user_id", "annotator", "worker", "batch", "version", "seed", "index", "idx", "uuid", "domain", "subset", "size",
    "utc", "uid", "guid", "logp", "logps", "logprob", "logprobs", "rationale", "rationales", "critique", "reason", "reasons", "explanation",
    "elaboration", "statement", "feedback_text", "metadata", "meta", "confidence", "ratio", "difference", "seconds",
}  # fmt: skip
"""Words in a name that say that the column is about something, not the thing itself."""
INDEX_WORDS = {"id", "idx", "index", "number", "no"}
"""Words in the name of a winner column whose number is that of the answer."""
JUDGE_WORDS = {
    "winner", "loser", "chosen", "rejected", "reject", "rejects", "accepted", "dispreferred", "preferred", "preference", "preferences",
    "better", "worse", "best", "worst", "rank", "ranks", "ranking", "label", "labels", "vote", "votes", "verdict", "choice", "score", "scores",
    "rating", "ratings", "reward", "rewards", "thumb", "thumbs", "feedback", "stars", "upvotes", "downvotes", "likes", "toxic", "harmful",
    "unsafe", "safe", "is_safe", "correct", "incorrect", "good", "bad", "selected", "picked", "quality", "judgement", "judgment", "grade",
    "helpfulness", "correctness", "win", "wins",
}  # fmt: skip
"""Words in the name of a column that may say which answer is better, or how good one is."""
CONTEXT_WORDS = {
    "context", "history", "conversation", "conversations", "dialogue", "dialog", "turns", "messages", "system", "system_prompt", "instruction",
    "input", "passage", "passages", "document", "documents", "article", "background", "persona", "question", "title", "post", "body", "prompt",
    "query", "story", "evidence", "scenario", "situation", "setting", "premise", "excerpt", "paragraph", "abstract", "snippet", "transcript",
    "lecture", "report", "email", "letter", "guidelines", "rules", "knowledge", "facts", "schema", "table", "previous", "chat", "tools", "functions",
}  # fmt: skip
"""Words in the name of a column that may be part of what the model is asked."""
NEGATIVE_WORDS = {
    "toxic",
    "harmful",
    "unsafe",
    "bad",
    "incorrect",
    "spam",
    "hate",
    "rejected",
    "flagged",
    "wrong",
    "hallucination",
}

COUPLES = (
    ("a", "b"),
    ("0", "1"),
    ("1", "2"),
    ("left", "right"),
    ("first", "second"),
    ("one", "two"),
    ("x", "y"),
    ("j", "k"),
)
"""Parts of two names that number two answers."""
JOINED = (
    ("instruction", "input"),
    ("title", "post"),
    ("title", "body"),
    ("title", "selftext"),
    ("context", "question"),
    ("passage", "question"),
    ("document", "question"),
    ("article", "question"),
    ("background", "question"),
    ("context", "instruction"),
    ("context", "query"),
)
"""Columns that are one prompt together, in the order in which they are read."""


def plain(column: str) -> str:
    """Return a column's name without case, with underscores for what joins its words: `Response A` is response_a."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", column.strip())
    return re.sub(r"[\s.\-_]+", "_", words).strip("_").casefold()


def names_in(path: str) -> list[str]:
    """Return the plain names along a path, the last one first, without parts that say nothing unless there is no other."""
    inner = re.sub(r"^(?:json|text)\((.*?)\)", r"\1", path)
    parts = [plain(part) for part in re.split(r"[.\[\]\d]*\.|\[\d*\]", inner) if part]
    said = [part for part in reversed(parts) if part and part not in GENERIC]
    return said or parts[-1:]


def words_in(path: str) -> list[str]:
    """Return the words of the last name in a path that says something, numbers apart: answer_1 and answer1 are the same."""
    last = names_in(path)[0] if names_in(path) else ""
    return [word for part in last.split("_") for word in re.findall(r"\d+|[^\d]+", part)]


def is_called(path: str, role: str) -> bool:
    """Return whether a column has one of the names of a role."""
    return any(name in (role, *NAMES[role].split()) for name in names_in(path)[:1])


def by_name(role: str, paths: Collection[str]) -> list[str]:
    """Return the columns that have a name of a role, the commonest name first."""
    order = [role, *NAMES[role].split()]
    found = [(order.index(names_in(path)[0]), path) for path in paths if is_called(path, role)]
    return [path for _, path in sorted(found)]


def is_meta(path: str) -> bool:
    """Return whether a name is about the data, not part of it: `chosen_model`, `answer_id`."""
    words = words_in(path)
    if len(words) == 1:
        return words[0] in META_WORDS
    return bool(set(words) & META_WORDS)


def couple_of(first: str, second: str) -> tuple[str, str] | None:
    """Return the two words in which two names differ, where these number two things: (a, b), (0, 1); None for other names."""
    one, other = _flat(first), _flat(second)
    if len(one) != len(other):
        return None
    differing = [(a, b) for a, b in zip(one, other, strict=True) if a != b]
    if len(differing) != 1:
        return None
    pair = differing[0]
    return pair if pair in COUPLES or pair in (("chosen", "rejected"),) else None


def _flat(path: str) -> Sequence[str]:
    """Return all words of a path."""
    return [
        word for part in re.split(r"[^A-Za-z0-9]+", plain(path)) for word in re.findall(r"\d+|[^\d]+", part)
    ]


def is_context(path: str) -> bool:
    """Return whether a column's name sounds like part of what is asked."""
    return bool(
        set(names_in(path)[:1]) & CONTEXT_WORDS or set(words_in(path)) & CONTEXT_WORDS
    ) and not is_meta(path)
