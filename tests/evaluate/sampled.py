"""Rows as `dpo sample` writes them, without a model."""

from __future__ import annotations

from typing import Any


def sampled(
    prompt: str, policy: str | None, reference: str | None = None, chosen: str | None = None, **more: Any
) -> dict[str, Any]:
    """Give one draw; `more` sets temperature and k."""
    said = {
        role: None
        if text is None
        else {"text": text, "tokens": len(text), "model": role, "digest": f"of {role}"}
        for role, text in (("policy", policy), ("reference", reference))
    }
    settings = {"seed": 3, "max_new_tokens": 8, "engine": "transformers", "temperature": 1.0, "k": 0}
    asked = [{"role": "user", "content": prompt}]
    return {"prompt": asked, "prompt_key": prompt, "source": "", "chosen": chosen, **settings, **said, **more}
