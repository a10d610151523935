"""The README shows code that is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def test_the_method_that_it_shows_is_the_file() -> None:
    (shown,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)

    assert shown.strip() in (ROOT / "dpo_cli" / "methods" / "simpo.py").read_text()


def test_it_lists_every_method() -> None:
    from dpo_cli import methods

    listed = re.findall(r"^\| `(\w+)` \|", README, flags=re.MULTILINE)

    assert sorted(listed) == methods.names()
