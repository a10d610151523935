"""What other people call the columns that formats read. For `dpo init`, which writes down what it takes; nothing trains on a guess."""

from __future__ import annotations

import re
from collections.abc import Collection

NAMES = {
    "prompt": "question query instruction input ask request user user_message message context problem x",
    "completion": "response answer output reply generation assistant assistant_message model_output bot_response y",
    "chosen": "preferred accepted accept better good win winning best chosen_response response_chosen answer_chosen chosen_answer "
    "preferred_response positive y_w yw",
    "rejected": "dispreferred non_preferred nonpreferred not_preferred reject worse bad lose losing loser worst rejected_response "
    "response_rejected answer_rejected rejected_answer dispreferred_response negative y_l yl",
    "answer_a": "response_a output_a completion_a text_a option_a candidate_a a answer1 answer_1 response1 response_1 output1 output_1 "
    "completion1 completion_1 left first response_0 output_0",
    "answer_b": "response_b output_b completion_b text_b option_b candidate_b b answer2 answer_2 response2 response_2 output2 output_2 "
    "completion2 completion_2 right second response_1 output_1",
    "winner": "preferred preference choice better best label verdict vote selected picked winning",
    "rating_a": "score_a score1 score_1 rating1 rating_1 stars_a score_0 rating_0",
    "rating_b": "score_b score2 score_2 rating2 rating_2 stars_b score_1 rating_1",
    "label": "thumb thumbs rating ratings feedback score stars vote reaction kto_tag helpful liked is_good thumbs_up sentiment verdict",
    "completions": "responses answers outputs candidates replies ranking ranked ranked_responses generations",
    "ratings": "scores ranks_scores stars rating score",
    "messages": "conversation conversations dialog dialogue chat turns",
    "conversations": "conversation dialog dialogue chat turns messages",
    "instruction": "prompt question query",
    "input": "",
    "preferred_output": "",
    "non_preferred_output": "",
    "text": "document content body passage",
    "score_chosen": "chosen_score rating_chosen chosen_rating score_w reward_chosen chosen_reward",
    "score_rejected": "rejected_score rating_rejected rejected_rating score_l reward_rejected rejected_reward",
    "margin": "gap score_gap score_difference delta",
    "weight": "sample_weight row_weight",
    "system": "system_prompt system_message",
    "tools": "functions",
    "chat_template_kwargs": "",
}
"""A format's column -> other names, without case, spaces or dashes."""

JUDGES = {
    "winner",
    "chosen",
    "best",
    "better",
    "choice",
    "preferred",
    "preference",
    "selected",
    "rank",
    "ranks",
}
"""Words in the name of a column that says which of several completions is better."""


def columns_for(name: str, found: Collection[str]) -> list[str]:
    """Give the columns that may be what a format calls `name`: that one if it is there, else all with another known name, the commonest
    first.
    """
    if name in found:
        return [name]
    order = [name, *NAMES[name].split()]
    known = sorted(
        (column for column in found if plain(column) in order), key=lambda it: (order.index(plain(it)), it)
    )
    # Where answers are counted from 0, response_1 is the second of them.
    return [column for column in known if plain(column).endswith("_0")] or known


def may_order(column: str, value: object, completions: object) -> bool:
    """Say whether a row's column may say which of its completions is better: as many numbers, or one thing under such a name."""
    if not isinstance(value, list):
        return value is not None and bool(JUDGES & set(plain(column).split("_")))
    is_one_each = isinstance(completions, list) and len(value) == len(completions)
    return is_one_each and all(isinstance(it, int | float) for it in value)


def plain(column: str) -> str:
    """Give a column's name without case, with underscores for what joins its words: `Response A` is response_a."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", column.strip())
    return re.sub(r"[\s.\-_]+", "_", words).strip("_").casefold()
