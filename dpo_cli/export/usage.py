"""The code that loads a saved model, as its card shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_WHOLE = """\
from transformers import AutoModelForSequenceClassification, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForSequenceClassification.from_pretrained(folder)
"""
_ADAPTER = """\
from peft import AutoPeftModelForSequenceClassification
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoPeftModelForSequenceClassification.from_pretrained(folder, num_labels=1, pad_token_id=tokenizer.pad_token_id)
"""
"""The base says neither that there is one score nor which token pads. peft's class finds the trained head in every transformers that we take."""
_SCORES = {
    (True, True): """\
rows = tokenizer.apply_chat_template(chats, padding=True, return_dict=True, return_tensors="pt")
scores = model(**rows).logits[:, 0]  # one a chat, higher is better
""",
    (True, False): """\
rows = [tokenizer.apply_chat_template(chat, return_dict=True, return_tensors="pt") for chat in chats]
scores = [model(**row).logits.item() for row in rows]  # one by one: every control token ends chats, so none can pad
""",
    (False, True): """\
rows = tokenizer([text + tokenizer.eos_token for text in texts], padding=True, return_tensors="pt")
scores = model(**rows).logits[:, 0]  # one a text, higher is better
""",
    (False, False): """\
rows = [tokenizer(text + tokenizer.eos_token, return_tensors="pt") for text in texts]
scores = [model(**row).logits.item() for row in rows]  # one by one: every control token ends texts, so none can pad
""",
}
"""(it has a chat template, it has a token to pad with) -> how its scores are had."""
_ANSWERS = {
    True: """\
from transformers import pipeline

answer = pipeline("text-generation", folder)
chat = [{"role": "user", "content": question}]
print(answer(chat, max_new_tokens=200)[0]["generated_text"][-1]["content"])
""",
    False: """\
from transformers import pipeline

answer = pipeline("text-generation", folder)
print(answer(text, max_new_tokens=200)[0]["generated_text"])
""",
}
"""It has a chat template -> how its answers are had."""

LOADED_BY = {
    "library_name": {True: "peft", False: "transformers"},
    "base_model_relation": {True: "adapter", False: "finetune"},
}
"""Keys of the front matter -> their values for an adapter and for a whole model."""


def usage(tokenizer: PreTrainedTokenizerBase, *, is_reward: bool, is_adapter: bool) -> str:
    """Return the code that has a saved folder's scores (`chats` or `texts` -> `scores`) or its answer (to `question` or `text`), as Markdown.

    Args:
        tokenizer: the folder's; one without a pad token scores row by row, one without a chat template takes texts.
        is_reward: the folder scores answers in place of writing some.
        is_adapter: it holds an adapter, not a whole model.
    """
    is_chat, pads = bool(tokenizer.chat_template), tokenizer.pad_token is not None
    scoring = (_ADAPTER if is_adapter else _WHOLE) + _SCORES[is_chat, pads]
    return f"```python\n{scoring if is_reward else _ANSWERS[is_chat]}```\n"


def as_whole(card: str, tokenizer: PreTrainedTokenizerBase, *, is_reward: bool) -> str:
    """Return an adapter's card for the folder that holds it merged into its base."""
    of_adapter, of_whole = (
        usage(tokenizer, is_reward=is_reward, is_adapter=is_adapter) for is_adapter in (True, False)
    )
    for name, values in LOADED_BY.items():
        card = card.replace(f"{name}: {values[True]}\n", f"{name}: {values[False]}\n")
    return card.replace(of_adapter, of_whole)
