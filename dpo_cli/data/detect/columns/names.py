"""What people call the columns that formats read. For `dpo init`, which writes down what it takes; nothing trains on a guess."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

NAMES = {
    "prompt": "question query instruction input ask request user user_message user_prompt message context problem post body x user_input user_query "
    "original_prompt task src",
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
ANSWER_NOUNS = {
    "answer", "answers", "response", "responses", "output", "outputs", "completion", "completions", "reply", "replies", "text", "texts",
    "summary", "summaries", "generation", "generations", "conversation", "conversations", "translation", "message", "messages", "code",
}  # fmt: skip
"""Last words of a name that say that the column is an answer, or what is asked, whatever stands before them."""
RATING_WORDS = {
    "score", "scores", "rating", "ratings", "stars", "reward", "rewards", "grade", "grades", "points", "upvotes", "votes", "likes", "quality",
    "helpfulness", "elo", "preference",
}  # fmt: skip
RANK_WORDS = {
    "rank",
    "ranks",
    "ranking",
    "rankings",
    "place",
    "places",
    "position",
    "positions",
    "order",
    "placement",
}
LOW_WORDS = {
    "loss", "losses", "costs", "penalties", "perplexity", "ppl", "nll", "error", "errors", "penalty", "toxicity", "severity", "harm",
    "harmfulness", "distance", "cost",
    "mistakes", "faults",
}  # fmt: skip
"""Words of a number of which less is usually better; never taken without a question."""
META_WORDS = {
    "model", "models", "policy", "policies", "source", "sources", "id", "ids", "name", "names", "hash", "sha", "sha256", "tokens", "token",
    "length", "len", "count", "num", "time", "date", "created", "updated", "at", "type", "category", "lang", "language", "url", "split",
    "dataset", "author", "user_id", "annotator", "worker", "batch", "version", "seed", "index", "idx", "uuid", "domain", "subset", "size",
    "utc", "uid", "guid", "logp", "logps", "logprob", "logprobs", "rationale", "rationales", "critique", "reason", "reasons", "explanation",
    "elaboration",
    "statement", "feedback_text", "metadata", "meta", "confidence", "ratio", "difference", "seconds", "comment", "comments", "remark",
    "remarks", "chars", "words", "latency", "price", "temperature", "justification", "annotators", "link", "topic",
}  # fmt: skip
"""Words in a name that say that the column is about something, not the thing itself."""
REMARK_WORDS = {
    "rationale", "rationales", "critique", "critiques", "reason", "reasons", "reasoning", "explanation", "explanations", "elaboration",
    "statement", "comment", "comments", "remark", "remarks", "justification", "feedback", "review", "reference", "gold", "ground", "truth",
    "expected", "ideal", "target", "original", "raw", "description", "metadata", "meta", "error",
}  # fmt: skip
"""Words in the name of prose that is written about an answer, or is one that nobody compares."""
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
LOSER_WORDS = {
    "loser", "losing", "lose", "loses", "lost", "worse", "worst", "rejected", "reject", "rejects", "dispreferred", "nonpreferred", "disliked",
}  # fmt: skip
"""Words in the name of a column that says which answer is the worse one."""
CONTEXT_WORDS = {
    "context", "history", "conversation", "conversations", "dialogue", "dialog", "turns", "messages", "system", "system_prompt", "instruction",
    "input", "passage", "passages", "document", "documents", "article", "background", "persona", "question", "title", "post", "body", "prompt",
    "query", "story", "evidence", "scenario", "situation", "setting", "premise", "excerpt", "paragraph", "abstract", "snippet", "transcript",
    "lecture", "report", "email", "letter", "guidelines", "rules", "knowledge", "facts", "schema", "table", "previous", "chat", "tools",
    "functions",
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

OPPOSITES = (
    ("chosen", "rejected"),
    ("preferred", "dispreferred"),
    ("preferred", "nonpreferred"),
    ("preferred", "rejected"),
    ("accepted", "rejected"),
    ("better", "worse"),
    ("best", "worst"),
    ("good", "bad"),
    ("winner", "loser"),
    ("winning", "losing"),
    ("win", "lose"),
    ("positive", "negative"),
    ("pos", "neg"),
    ("liked", "disliked"),
    ("correct", "incorrect"),
    ("right", "wrong"),
    ("safe", "unsafe"),
    ("helpful", "unhelpful"),
)
"""Parts of two names that say which of two answers is the better one, that one first."""
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
_NUMBERING = {word for pair in COUPLES for word in pair}
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
    return _called(path, role) is not None


def _called(path: str, role: str) -> int | None:
    """Return which name of a role a column has, the commonest being 0; `question_text` is called `question`."""
    order = [role, *NAMES[role].split()]
    for name in names_in(path)[:1]:
        plainer = [name, *(name.removesuffix(end) for end in ("_text", "_content", "_body"))]
        if role == "prompt":
            plainer += [
                name.removeprefix(start) for start in ("orig_", "original_", "user_", "human_", "initial_")
            ]
        for each in plainer:
            if each in order:
                return order.index(each)
    return None


def by_name(role: str, paths: Collection[str]) -> list[str]:
    """Return the columns that have a name of a role, the commonest name first."""
    found = [(at, path) for path in paths if (at := _called(path, role)) is not None]
    return [path for _, path in sorted(found)]


def is_meta(path: str) -> bool:
    """Return whether a name is about the data, not part of it: `chosen_model`, `answer_id`."""
    words = words_in(path)
    said = [word for word in words if not word.isdigit() and word not in _NUMBERING]
    if len(words) > 1 and said and said[-1] in ANSWER_NOUNS and not set(words) & REMARK_WORDS:
        return False  # `model_output` is an output, `answer_model` a model
    return bool(set(words) & META_WORDS)


def is_answer(path: str) -> bool:
    """Return whether a name ends with a word for one answer: `model_response`."""
    words = words_in(path)
    return bool(words) and words[-1] in NAMES["completion"].split()[:6] and not set(words) & REMARK_WORDS


def couple_of(first: str, second: str) -> tuple[str, str] | None:
    """Return the two words in which two names differ, where these number two things: (a, b), (0, 1); None for other names."""
    pair = _difference(first, second)
    return pair if pair in COUPLES or pair == ("chosen", "rejected") else None


def are_opposites(better: str, worse: str) -> bool:
    """Return whether two names differ in one word that says which is better: `good_answer`, `bad_answer`."""
    return _difference(better, worse) in OPPOSITES


def _difference(first: str, second: str) -> tuple[str, str] | None:
    """Return the two words in which two names differ; None where they differ in more, or not at all."""
    one, other = _flat(first), _flat(second)
    if len(one) != len(other):
        return None
    differing = [(a, b) for a, b in zip(one, other, strict=True) if a != b]
    return differing[0] if len(differing) == 1 else None


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
