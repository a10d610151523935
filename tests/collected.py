"""A pytest plugin that writes what was collected, test by test, with all parameters: `pytest -p tests.collected --collected FILE`."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Mapping, Sequence, Set
from functools import partial
from pathlib import Path
from typing import Any

import pytest

LATER_S = 3661.0


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--collected", type=Path, help="write the tests there")
    parser.addoption("--later", action="store_true", help="collect as if it were an hour later")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--later"):
        now = time.time
        time.time = lambda: now() + LATER_S


def pytest_collection_finish(session: pytest.Session) -> None:
    path = session.config.getoption("--collected")
    if path is not None:
        path.write_text("".join(f"{described(item)}\n" for item in session.items), encoding="utf-8")


def described(item: pytest.Item) -> str:
    """Return a test's id with the parameters behind it, on one line."""
    callspec = getattr(item, "callspec", None)
    return f"{item.nodeid} {stable(callspec.params) if callspec else ''}".replace("\n", "\\n")


def stable(value: Any) -> str:
    """Return a text for a parameter that is equal for equal content, and other for other content as far as it can be seen."""
    match value:
        case Mapping():
            return "{" + ", ".join(f"{stable(key)}: {stable(each)}" for key, each in value.items()) + "}"
        case Set():  # as equal as its members: no test can ask a set for its order
            return "{" + ", ".join(sorted(map(stable, value))) + "}"
        case partial():
            return f"partial({stable(value.func)}, {stable(value.args)}, {stable(value.keywords)})"
        case bytes() | str():
            return repr(value)
        case Sequence():
            return f"{type(value).__name__}({', '.join(map(stable, value))})"
    if callable(value):
        return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__name__)}"
    if dataclasses.is_dataclass(value):
        return f"{type(value).__name__}({stable({f.name: getattr(value, f.name) for f in dataclasses.fields(value)})})"
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))
