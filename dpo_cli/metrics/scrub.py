"""Takes credentials out of what is written or sent."""

from __future__ import annotations

import re
from typing import Any

HIDDEN = "[hidden]"

_BARE = re.compile(r"\b(?:hf_[A-Za-z0-9]{8,}|wandb_v\d+_\w{8,}|sk-[\w-]{20,}|ghp_\w{20,})")
_NAMED = re.compile(
    r"(?P<name>\b[A-Z][A-Z0-9_]*(?:KEY|TOKEN|SECRET|PASSWORD)\b['\"]?\s*[=:]\s*"  # an environment variable
    r"|\bapi_?key['\"]?\s*[=:]\s*|--[a-z-]*(?:token|key|secret|password)[= ])"
    r"['\"]?[^\s'\",}]+"
)
_HEX40 = re.compile(r"(?P<name>revision['\"]?\s*[=:]\s*['\"]?)?\b[0-9a-f]{40}\b")
"""A W&B key looks like a commit; only what is named a revision is one."""
_LOGIN = re.compile(r"(?<=://)[^/\s@]+@")


def scrub(text: str) -> str:
    """Return the text without access tokens, keys, `*_KEY/TOKEN/SECRET` values and logins in addresses."""
    text = _LOGIN.sub(f"{HIDDEN}@", text)
    text = _NAMED.sub(lambda match: match["name"] + HIDDEN, text)
    text = _HEX40.sub(lambda match: match[0] if match["name"] else HIDDEN, text)
    return _BARE.sub(HIDDEN, text)


def holds_secret(text: str) -> bool:
    """Return whether a text holds what can only be an access token, or an address with a login."""
    return bool(_BARE.search(text) or _LOGIN.search(text))


def scrub_values(value: Any) -> Any:
    """Return nested dicts and lists with every string scrubbed; a `revision` is kept."""
    if isinstance(value, dict):
        return {key: item if key == "revision" else scrub_values(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [scrub_values(item) for item in value]
    return scrub(value) if isinstance(value, str) else value
