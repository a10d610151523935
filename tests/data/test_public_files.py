"""Files as public sets and labelling tools have them, by their columns; rows are made up. The better answer starts with Gilt, the worse with Lead."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dpo_cli.data.detect.infer import infer
from dpo_cli.data.detect.infer.question import Question
from dpo_cli.data.detect.parse import parse_rows
from dpo_cli.data.sources.files import read_source
from dpo_cli.data.sources.placed_rows import Problems
from dpo_cli.recipe.schema import Source
from dpo_cli.types import Example, Text
from tests.data.pasted import pasted
from tests.fakes import write_jsonl

Row = dict[str, Any]
N = 8


def ask(at: int) -> str:
    return f"Why are harbours built in bay {at}?"


def gilt(at: int) -> str:
    return f"Gilt: they keep boats safe in bay {at}."


def lead(at: int) -> str:
    return f"Lead: who knows, ask somebody else than me {at}."


def user(text: str) -> Row:
    return {"role": "user", "content": text}


def said(text: str) -> Row:
    return {"role": "assistant", "content": text}


def talk(at: int, answer: str) -> list[Row]:
    return [user(f"Hello {at}."), said("Hello."), user(ask(at)), said(answer)]


def human(*texts: str) -> list[Row]:
    return [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(texts)]


def two(at: int) -> tuple[str, str]:
    """Two answers; the first is the better one in every other row."""
    return (gilt(at), lead(at)) if at % 2 else (lead(at), gilt(at))


def won(at: int, first: Any, second: Any) -> Any:
    return first if at % 2 else second


READ: dict[str, Callable[[int], Row]] = {
    "hh_rlhf": lambda at: {side: f"\n\nHuman: Hello {at}.\n\nAssistant: Hello.\n\nHuman: {ask(at)}\n\nAssistant: {text}" for side, text in (("chosen", gilt(at)), ("rejected", lead(at)))},
    "ultrafeedback_raw": lambda at: {
        "source": "flan", "instruction": ask(at), "models": ["a", "b"],
        "completions": [{"model": "a", "response": lead(at), "overall_score": 3.5, "critique": "Too short by far.", "annotations": {"helpfulness": {"Rating": "2", "Rationale": "It says nothing."}}},
                        {"model": "b", "response": gilt(at), "overall_score": 8.5, "critique": "Good and clear.", "annotations": {"helpfulness": {"Rating": "5", "Rationale": "It says much."}}}],
        "correct_answers": ["None"], "incorrect_answers": ["None"],
    },
    "ultrafeedback_binarized": lambda at: {"prompt": ask(at), "prompt_id": f"{at:x}", "chosen": [user(ask(at)), said(gilt(at))], "rejected": [user(ask(at)), said(lead(at))], "messages": [user(ask(at)), said(gilt(at))], "score_chosen": 8.0, "score_rejected": 3.0},
    "nectar": lambda at: {
        "prompt": f"\n\nHuman: {ask(at)}\n\nAssistant: ", "num_responses": 2, "turns": 1, "good_natured": True, "source": ["lmsys-chat-1m"],
        "answers": [{"answer": gilt(at), "model": "gpt-4", "rank": 1.0}, {"answer": lead(at), "model": "llama", "rank": 2.0}],
    },
    "shp": lambda at: {
        "post_id": f"p{at}", "domain": "askscience_train", "upvote_ratio": 0.9, "history": ask(at), "c_root_id_A": "a", "c_root_id_B": "b", "created_at_utc_A": 1, "created_at_utc_B": 2,
        "score_A": won(at, 30, 3), "score_B": won(at, 3, 30), "human_ref_A": two(at)[0], "human_ref_B": two(at)[1], "labels": won(at, 1, 0), "seconds_difference": 3.0, "score_ratio": 10.0,
    },
    "webgpt": lambda at: {
        "question": {"dataset": "eli5", "id": f"q{at}", "full_text": ask(at)}, "quotes_0": {"title": ["T"], "extract": ["E"]}, "answer_0": two(at)[0], "tokens_0": {"prefix": [1], "completion": [2]}, "score_0": won(at, 1.0, -1.0),
        "quotes_1": {"title": ["T"], "extract": ["E"]}, "answer_1": two(at)[1], "tokens_1": {"prefix": [1], "completion": [2]}, "score_1": won(at, -1.0, 1.0),
    },
    "summarize_from_feedback": lambda at: {
        "info": {"id": f"t{at}", "post": ask(at), "title": f"Harbours {at}", "subreddit": "sea", "site": None, "article": None}, "summaries": [{"text": two(at)[0], "policy": "sup1", "note": "ok"}, {"text": two(at)[1], "policy": "ref", "note": None}],
        "choice": won(at, 0, 1), "worker": "w", "batch": "batch3", "split": "train", "extra": {"confidence": 5},
    },
    "helpsteer3": lambda at: {
        "domain": "general", "language": "english", "context": [user(f"Hello {at}."), said("Hello."), user(ask(at))], "response1": two(at)[0], "response2": two(at)[1], "overall_preference": won(at, -2, 1),
        "individual_preference": [{"score": won(at, -2, 1), "reasoning": "One is clearer.", "feedback1": "Fine.", "feedback2": "Not so."}],
    },
    "helpsteer2_preference": lambda at: {
        "split": "train", "prompt": ask(at), "response_1": two(at)[0], "response_2": two(at)[1], "preference_strength": won(at, -2, 3), "preference_statement": "Response 1 is better.", "preference_elaboration": "It is clearer and says more.",
        "three_most_similar_preferences": [], "all_preferences_unprocessed": [],
    },
    "arena_33k": lambda at: {
        "question_id": f"{at:x}", "model_a": "x", "model_b": "y", "winner": won(at, "model_a", "model_b"), "judge": "arena_user_1", "conversation_a": talk(at, two(at)[0]), "conversation_b": talk(at, two(at)[1]), "turn": 2, "anony": True, "language": "English", "tstamp": 1.0 * at,
        "openai_moderation": {"flagged": False, "categories": {"hate": False}}, "toxic_chat_tag": {"roberta-large": {"flagged": False, "probability": 0.1}},
    },
    "mt_bench_human": lambda at: {"question_id": 81 + at, "model_a": "x", "model_b": "y", "winner": won(at, "model_a", "model_b"), "judge": "author_2", "conversation_a": talk(at, two(at)[0]), "conversation_b": talk(at, two(at)[1]), "turn": 2},
    "openai_preference": lambda at: {"input": {"messages": [user(f"Hello {at}."), said("Hello."), user(ask(at))], "tools": [], "parallel_tool_calls": True}, "preferred_output": [said(gilt(at))], "non_preferred_output": [said(lead(at))]},
    "llama_factory_sharegpt": lambda at: {"conversations": human(f"Hello {at}.", "Hello.", ask(at)), "chosen": {"from": "gpt", "value": gilt(at)}, "rejected": {"from": "gpt", "value": lead(at)}},
    "llama_factory_alpaca": lambda at: {"instruction": "Answer this.", "input": ask(at), "chosen": gilt(at), "rejected": lead(at)},
    "axolotl_chat_template": lambda at: {"messages": [user(ask(at))], "chosen": said(gilt(at)), "rejected": said(lead(at))},
    "axolotl_llama3": lambda at: {"system": "Be kind.", "prompt": ask(at), "chosen": gilt(at), "rejected": lead(at)},
    "axolotl_intel": lambda at: {"system": "Be kind.", "question": ask(at), "chosen": gilt(at), "rejected": lead(at)},
    "axolotl_prompt_pairs": lambda at: {"instruction": ask(at), "chosen_response": gilt(at), "rejected_response": lead(at)},
    "zephyr_nectar": lambda at: {"system": None, "prompt": ask(at), "chosen": gilt(at), "rejected": lead(at), "source": "evol"},
    "orca_dpo_pairs": lambda at: {"system": "" if at % 2 else "Be kind.", "question": ask(at), "chosen": gilt(at), "rejected": lead(at)},
    "distilabel_orca": lambda at: {
        "system": "Be kind.", "input": ask(at), "chosen": gilt(at), "rejected": lead(at), "generations": [gilt(at), lead(at)], "order": ["gpt-4", "llama"], "labelling_model": "gpt-4", "labelling_prompt": [user("Which is better, and why?")], "raw_labelling_response": "8 3",
        "rating": [8.0, 3.0], "rationale": "One is clearer.", "status": "unchanged", "original_chosen": gilt(at), "original_rejected": lead(at), "chosen_score": 8.0, "in_gsm8k_train": False,
    },
    "tulu_3": lambda at: {"id": f"t{at}", "source": "wild", "prompt": ask(at), "chosen": [user(ask(at)), said(gilt(at))], "rejected": [user(ask(at)), said(lead(at))], "chosen_rating": 5.0, "rejected_rating": 2.0, "chosen_model": "x", "rejected_model": "y"},
    "skywork": lambda at: {"chosen": talk(at, gilt(at)), "rejected": talk(at, lead(at)), "source": "magpie"},
    "stack_exchange_preferences": lambda at: {
        "qid": at, "question": ask(at), "date": "2020/01/01", "metadata": ["https://stackexchange.com/q"],
        "answers": [{"answer_id": 1, "author": "a", "author_id": 1, "author_profile": "p", "pm_score": 1, "selected": False, "text": lead(at)}, {"answer_id": 2, "author": "b", "author_id": 2, "author_profile": "q", "pm_score": 5, "selected": True, "text": gilt(at)}],
    },
    "stack_exchange_paired": lambda at: {"qid": at, "question": ask(at), "date": "2020", "metadata": ["x"], "response_j": gilt(at), "response_k": lead(at)},
    "kto_mix": lambda at: {"prompt": [user(ask(at))], "completion": [said(won(at, gilt(at), lead(at)))], "label": bool(at % 2)},
    "orpo_mix": lambda at: {"source": "Airoboros", "chosen": talk(at, gilt(at)), "rejected": talk(at, lead(at)), "prompt": ask(at), "question": ask(at)},
    "dpo_mix": lambda at: {"dataset": "capybara", "chosen": talk(at, gilt(at)), "rejected": talk(at, lead(at)), "chosen_rating": 5.0, "rejected_rating": 4.0},
    "rlhflow": lambda at: {"rejected": talk(at, lead(at)), "rejected_score": 2.0, "chosen": talk(at, gilt(at)), "chosen_score": 4.0},
    "rlhflow_conv": lambda at: {"conv_chosen": talk(at, gilt(at)), "conv_rejected": talk(at, lead(at))},
    "magpie": lambda at: {
        "uuid": f"u{at}", "instruction": ask(at), "responses": [lead(at), gilt(at)], "gen_input_configs": {"temperature": 0.8}, "gen_response_configs": {"prompt": "x"}, "intent": "to know", "knowledge": "harbours", "difficulty": "easy", "task_category": "Information",
        "rewards_armorm": [{"score": 0.1, "score_details": [0.1]}, {"score": 0.2, "score_details": [0.2]}], "chosen": [user(ask(at)), said(gilt(at))], "rejected": [user(ask(at)), said(lead(at))],
    },
    "beavertails": lambda at: {"prompt": ask(at), "response": won(at, gilt(at), lead(at)), "category": {"animal_abuse": not at % 2, "hate_speech,offensive_language": False}, "is_safe": bool(at % 2)},
    "alpaca_farm": lambda at: {"instruction": ask(at), "input": "", "output_1": two(at)[0], "output_2": two(at)[1], "preference": won(at, 1, 2), "raw_preference": won(at, 1, 2)},
    "stack_llama_rm": lambda at: {"prompt": ask(at), "chosen": gilt(at), "rejected": lead(at), "reject_reason": "It says nothing."},
    "toxic_dpo": lambda at: {"id": f"{at}", "prompt": ask(at), "chosen": gilt(at), "rejected": lead(at)},
    "gutenberg": lambda at: {"prompt": ask(at), "chosen": gilt(at), "rejected": lead(at), "rejected_model": "yi-34b"},
    "truthy": lambda at: {"id": f"i{at}", "source": "truthy_dpo", "system": "You are an unbiased, honest assistant.", "prompt": ask(at), "chosen": gilt(at), "rejected": lead(at)},
    "py_dpo": lambda at: {"prompt": ask(at), "chosen": gilt(at), "rejected": lead(at), "id": f"i{at}"},
    "code_ultra": lambda at: {"instruction": ask(at), "chosen": gilt(at), "rejected": lead(at), "chosen_rating": "5", "rejected_rating": "1"},
    "helpful_base_trl": lambda at: {"prompt": [user(f"Hello {at}."), said("Hello."), user(ask(at))], "chosen": [said(gilt(at))], "rejected": [said(lead(at))]},
    "openrlhf_mixture": lambda at: {"source": "hh", "chosen": talk(at, gilt(at)), "rejected": talk(at, lead(at)), "chosen_score": 1.0, "rejected_score": 0.0},
    "ms_swift": lambda at: {"messages": talk(at, gilt(at)), "rejected_response": lead(at)},
    "ms_swift_kto": lambda at: {"messages": talk(at, won(at, gilt(at), lead(at))), "label": bool(at % 2)},
    "xtuner": lambda at: {"prompt": [user(ask(at))], "chosen": [said(gilt(at))], "rejected": [said(lead(at))]},
    "reward_bench": lambda at: {"prompt": ask(at), "chosen": gilt(at), "chosen_model": "x", "rejected": lead(at), "rejected_model": "y", "subset": "alpacaeval-easy", "id": at},
    "argilla_chat": lambda at: {"instruction": ask(at), "chosen-response": gilt(at), "rejected-response": lead(at)},
    "dove": lambda at: {"instruction": ask(at), "input_1": ask(at), "chosen": gilt(at), "rejected": lead(at)},
    "wildfeedback": lambda at: {"conversation_id": f"{at:x}", "prompt": [user(f"Hello {at}."), said("Hello."), user(ask(at))], "chosen": gilt(at), "rejected": lead(at), "user_preference": ["More about safety, please."]},
    "safe_edit": lambda at: {"question": ask(at), "safe_response": gilt(at), "unsafe_response": lead(at)},
    "judge_lm": lambda at: {"question_id": at, "question_body": ask(at), "answer1_body": two(at)[0], "answer2_body": two(at)[1], "score": [won(at, 9, 2), won(at, 2, 9)], "answer1_model_id": "x", "answer2_model_id": "y"},
    "panda_lm": lambda at: {"idx": at, "instruction": "Answer this.", "input": ask(at), "response1": two(at)[0], "response2": two(at)[1], "winner": won(at, "1", "2")},
    "prometheus": lambda at: {"orig_instruction": ask(at), "orig_response_A": two(at)[0], "orig_response_B": two(at)[1], "orig_preference": won(at, "A", "B"), "orig_feedback": "The one is clearer than the other."},
    "feedback_thumbs": lambda at: {"input": ask(at), "output": won(at, gilt(at), lead(at)), "feedback": won(at, "thumbs_up", "thumbs_down"), "comment": f"I liked number {at} or not."},
    "kto_dashboard": lambda at: {"trace_id": f"t{at}", "input": [user(ask(at))], "output": said(won(at, gilt(at), lead(at))), "user_feedback": won(at, 1, -1), "latency": 0.3, "timestamp": "2024"},
    "pairrm": lambda at: {"prompt": ask(at), "prompt_id": f"{at}", "chosen": [user(ask(at)), said(gilt(at))], "rejected": [user(ask(at)), said(lead(at))], "all_generated_responses": [lead(at), gilt(at)], "all_rm_scores": [0.1, 0.2]},
    "reward_bench_2": lambda at: {"id": at, "prompt": ask(at), "chosen": [gilt(at)], "rejected": [lead(at), lead(at) + " Two."], "num_correct": 1, "num_incorrect": 2, "total_completions": 3, "models": ["x"], "subset": "Math", "additional_metadata": None},
    "distilabel_v1": lambda at: {"instruction": ask(at), "generations": [lead(at), gilt(at)], "generation_models": ["x", "y"], "ratings": [2, 5], "rationales": ["Too short by far.", "Good and clear."], "model_name": "gpt-4", "types": [], "rationales-for-ratings": ["Bad.", "Good."]},
    "lmsys_55k": lambda at: {"id": at, "model_a": "x", "model_b": "y", "prompt": json.dumps([f"Hello {at}.", ask(at)]), "response_a": json.dumps(["Hello.", two(at)[0]]), "response_b": json.dumps(["Hello.", two(at)[1]]), "winner_model_a": won(at, 1, 0), "winner_model_b": won(at, 0, 1), "winner_tie": 0},
    "labelbox_like": lambda at: {"prompt": ask(at), "responses": {"a": two(at)[0], "b": two(at)[1]}, "preferred_response": won(at, "a", "b"), "annotator": "w1"},
    "prodigy": lambda at: {"text": ask(at), "options": [{"id": "A", "text": two(at)[0]}, {"id": "B", "text": two(at)[1]}], "accept": [won(at, "A", "B")], "answer": "accept", "_input_hash": at, "_task_hash": at, "_view_id": "choice"},
    "argilla_label": lambda at: {"instruction": ask(at), "generation-1": two(at)[0], "generation-2": two(at)[1], "preference": won(at, "generation-1", "generation-2")},
    "scale_rlhf": lambda at: {"prompt": ask(at), "completion_a": two(at)[0], "completion_b": two(at)[1], "preference": won(at, "completion_a", "completion_b"), "justification": "The one is clearer than the other."},
    "hf_chat_ui": lambda at: {"messages": [user(ask(at)), said(won(at, gilt(at), lead(at)))], "rating": won(at, "up", "down")},
    "alignment_studio": lambda at: {"dialogue": [user(ask(at))], "option_a": two(at)[0], "option_b": two(at)[1], "better": won(at, "A", "B")},
    "cvalues": lambda at: {"prompt": ask(at), "pos_resp": gilt(at), "pos_type": "x", "neg_resp": lead(at), "neg_type": "y"},
    "bigcode": lambda at: {"instruction": ask(at), "response_accepted": gilt(at), "response_rejected": lead(at)},
    "vl_text": lambda at: {"question": ask(at), "chosen": gilt(at), "rejected": lead(at), "image": None},
    "zhihu": lambda at: {"prompt": ask(at), "chosen": gilt(at), "rejected": lead(at), "chosen_upvote": 30, "rejected_upvote": 2},
    "tldr_pairs": lambda at: {"prompt": ask(at), "label": gilt(at), "chosen": gilt(at), "rejected": lead(at)},
}  # fmt: skip

ASKED: dict[str, Callable[[int], Row]] = {
    "pku_saferlhf": lambda at: {
        "prompt": ask(at), "response_0": two(at)[0], "response_1": two(at)[1], "is_response_0_safe": True, "is_response_1_safe": True, "better_response_id": won(at, 0, 1), "safer_response_id": won(at, 0, 1), "prompt_source": "x", "response_0_source": "a", "response_1_source": "b",
        "response_0_severity_level": 0, "response_1_severity_level": 0, "response_0_sha256": "x", "response_1_sha256": "y",
    },
    "capybara": lambda at: {
        "source": "Airoboros", "conversation": [{"input": ask(at), "output": gilt(at)}], "original_response": gilt(at), "generation_prompt": [user("Be kind.")], "raw_generation_responses": ["x"], "new_generations": ["x"], "prompt": "Below are two answers, which one is better?",
        "chosen": [user(ask(at)), said(gilt(at))], "rejected": [user(ask(at)), said(lead(at))], "rating_chosen": 5, "rating_rejected": 2, "chosen_model": "x", "rejected_model": "y",
    },
    "own_votes": lambda at: {"prompt": ask(at), "answer_a": two(at)[0], "answer_b": two(at)[1], "label": won(at, 1, 0)},
    "prism": lambda at: {"user_prompt": ask(at), "model_response": won(at, gilt(at), lead(at)), "score": won(at, 90, 10), "if_chosen": bool(at % 2)},
}  # fmt: skip


def faults(source: Source) -> list[str]:
    problems = Problems()
    parsed = parse_rows(read_source(source, "data", problems), source, "data", True, problems)
    problems.raise_any()
    assert parsed is not None
    found = [fault for example in parsed.examples for fault in _faults(example)]
    if len(parsed.examples) != parsed.rows:
        found.append(f"{len(parsed.examples)} of {parsed.rows} rows are kept: {parsed.dropped}")
    return found


def _faults(example: Example) -> list[str]:
    asked, answers = _text(example.prompt), [_text(text).lstrip() for text in example.completions]
    if not ("Why are harbours built in bay" in asked and "Gilt" not in asked and "Lead" not in asked):
        return [f"the prompt is {asked!r}"]
    if len(answers) == 1:
        is_right = answers[0].startswith("Gilt" if example.label else "Lead") and example.label is not None
        return [] if is_right else [f"{example.label} is {answers[0]!r}"]
    is_right = answers[0].startswith("Gilt") and all(text.startswith("Lead") for text in answers[1:])
    return [] if is_right else [f"the order is {answers}"]


def _text(text: Text) -> str:
    return text if isinstance(text, str) else "\n".join(str(turn["content"]) for turn in text)


@pytest.mark.parametrize("name", READ)
def test_a_public_layout_is_read_right_at_once(name: str, tmp_path: Path) -> None:
    found = infer(Source(path=str(write_jsonl(tmp_path / "rows.jsonl", [READ[name](at) for at in range(N)]))))
    assert not faults(found.source), found.lines()


@pytest.mark.parametrize("name", ASKED)
def test_a_layout_of_which_two_readings_fit_is_asked_about_and_a_line_is_right(
    name: str, tmp_path: Path
) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [ASKED[name](at) for at in range(N)])
    try:
        found = infer(Source(path=str(path)))
    except Question as question:
        assert not all(faults(infer(pasted(option.command)).source) for option in question.options)
    else:
        assert not faults(found.source), found.lines()
