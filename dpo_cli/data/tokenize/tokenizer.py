"""Load a tokenizer with the recipe's overrides, and describe it."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Collection, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpo_cli.data.tokenize.template import keeps_control_text
from dpo_cli.data.tokenize.thinking import marks_of
from dpo_cli.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from dpo_cli.recipe.schema import Model

MAX_TEMPLATE_CHARS = 1024 * 1024
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")


def load_tokenizer(model: Model) -> PreTrainedTokenizerBase:
    """Return the tokenizer of `model.tokenizer`, or of `model.name`, with the recipe's end token and chat template.

    Raises:
        ModelError: path missing, no tokenizer there, unreachable, no end token, an end token it does not know, a template above 1 MiB.
    """
    key, name = ("model.tokenizer", model.tokenizer) if model.tokenizer else ("model.name", model.name)
    tokenizer = _from_pretrained(key, name, None if model.tokenizer else model.revision)
    if model.eos_token is not None:
        if model.eos_token not in tokenizer.get_vocab():
            raise ModelError.of(
                "model.eos_token",
                f"'{model.eos_token}' is no token of {name}",
                "one token of its vocabulary",
            )
        tokenizer.eos_token = model.eos_token
    if tokenizer.eos_token_id is None:
        raise ModelError.of(
            key,
            f"the tokenizer of '{name}' has no end token, so answers would never stop",
            "model.eos_token=<token>",
        )
    if model.chat_template is not None:
        tokenizer.chat_template = _read_template(Path(model.chat_template))
    template = tokenizer.chat_template or ""
    if isinstance(template, str) and len(template) > MAX_TEMPLATE_CHARS:
        raise ModelError.of(
            key,
            f"the chat template has more than {MAX_TEMPLATE_CHARS:,} characters",
            "model.chat_template=PATH",
        )
    return tokenizer


def _from_pretrained(key: str, name: str, revision: str | None) -> PreTrainedTokenizerBase:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
    from transformers import AutoTokenizer

    folder = os.path.expanduser(name)
    looks_local = os.path.isabs(folder) or name.startswith(".") or name.count("/") > 1
    if looks_local and not os.path.isdir(folder):
        raise ModelError.of(key, f"no such folder: '{os.path.abspath(folder)}'", "check the path")
    if os.path.isdir(folder) and not any(
        os.path.isfile(os.path.join(folder, file)) for file in TOKENIZER_FILES
    ):
        raise ModelError.of(
            key, f"no tokenizer in '{name}': none of {', '.join(TOKENIZER_FILES)}", "model.tokenizer=PATH"
        )
    try:
        return AutoTokenizer.from_pretrained(folder, revision=revision, trust_remote_code=False)
    except GatedRepoError as error:
        raise ModelError.of(
            key, f"'{name}' is gated", "accept its terms on the hub, then `hf auth login`"
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelError.of(
            key, f"the hub has no '{name}'", "check the name, or `hf auth login` if it is private"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = (" ".join(str(error).split()) or type(error).__name__).rstrip(".")
        if os.path.isdir(folder):
            raise ModelError.of(
                key, f"no usable tokenizer in '{name}': {what}", "model.tokenizer=PATH"
            ) from error
        fix = "name a local folder, or go online once so that it is cached"
        raise ModelError.of(
            key, f"'{name}' is neither a folder nor reachable on the hub: {what}", fix
        ) from error


def _read_template(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(MAX_TEMPLATE_CHARS + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError.of(
            "model.chat_template", f"'{path}' cannot be read: {error}", "a UTF-8 Jinja file"
        ) from error


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a digest of everything that decides how text becomes ids: vocabulary, rules, special tokens, template."""
    # Truncation and padding are left over from earlier calls and decide nothing here.
    unused = {"truncation": None, "padding": None}
    is_fast = tokenizer.is_fast
    backend = json.loads(tokenizer.backend_tokenizer.to_str()) | unused if is_fast else tokenizer.get_vocab()
    parts = [type(tokenizer).__name__, backend, tokenizer.special_tokens_map, tokenizer.chat_template]
    if not keeps_control_text(tokenizer):
        parts.append("control text is dropped")
    return hashlib.blake2b(
        json.dumps(parts, sort_keys=True, default=str).encode(), digest_size=16
    ).hexdigest()


class Vocabulary:
    """What a tokenizer says about single ids; built once, asked for every row."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, meant: Collection[str] = ()) -> None:
        """Take a tokenizer and the control tokens whose text means them (`data.control_tokens`).

        Raises:
            ModelError: one of these is no control token.
        """
        self._tokenizer, self._meant = tokenizer, frozenset(meant)
        if unknown := sorted(self._meant - set(self.special.values())):
            what = f"'{unknown[0]}' is no control token of the tokenizer"
            raise ModelError.of(
                "data.control_tokens", what, f"some of: {', '.join(sorted(self.special.values())[:12])}"
            )
        self._pieces: dict[int, str] = {}

    @cached_property
    def special(self) -> dict[int, str]:
        """Control tokens by id. The marks of think blocks are none, whatever the tokenizer says: answers spell them."""
        added = self._tokenizer.added_tokens_decoder
        listed = dict(zip(self._tokenizer.all_special_ids, self._tokenizer.all_special_tokens, strict=True))
        found = listed | {i: str(token) for i, token in added.items() if token.special}
        thinking = {mark for pair in marks_of(self._tokenizer) for mark in pair}
        return {i: token for i, token in found.items() if token not in thinking}

    def can_end(self, token: int) -> bool:
        """Return whether an id is a control token that may end an answer; the unknown token is ordinary text, one that is meant is itself."""
        if token == self._tokenizer.eos_token_id:
            return True
        is_unknown = token == self._tokenizer.unk_token_id
        return token in self.special and self.special[token] not in self._meant and not is_unknown

    def is_blank(self, token: int) -> bool:
        """Return whether an id stands for white space only."""
        return not self.piece(token).strip()

    def piece(self, token: int) -> str:
        """Return the text of one id; a byte of a longer character comes as the replacement character."""
        if token not in self._pieces:
            self._pieces[token] = str(self._tokenizer.decode([token]))
        return self._pieces[token]

    def spells_control(self, value: Any) -> bool:
        """Return whether any text within a value (keys included) spells a control token that is not meant."""
        return _spells(value, self._control)

    def spells_meant(self, value: Any) -> bool:
        """Return whether any text within a value (keys included) spells a control token that is meant."""
        return bool(self._meant) and _spells(value, self._meaning)

    def spelled(self, text: str) -> set[str]:
        """Return the control tokens that a text spells and that are not meant."""
        return set(self._control.findall(text))

    @cached_property
    def _control(self) -> re.Pattern[str]:
        return _any_of(token for token in self.special.values() if token not in self._meant)

    @cached_property
    def _meaning(self) -> re.Pattern[str]:
        return _any_of(self._meant)


def _any_of(tokens: Iterable[str]) -> re.Pattern[str]:
    """Return what matches any of some tokens, the longest first; never where there are none."""
    return re.compile("|".join(map(re.escape, sorted(tokens, key=len, reverse=True))) or r"(?!)")


def _spells(value: Any, tokens: re.Pattern[str]) -> bool:
    if isinstance(value, str):
        return tokens.search(value) is not None
    if isinstance(value, Mapping):
        return any(_spells(item, tokens) for pair in value.items() for item in pair)
    return isinstance(value, list | tuple) and any(_spells(item, tokens) for item in value)
