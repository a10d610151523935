"""No file that says which answers are better is read the other way round, in part, or not at all without a word.

Two thousand files are made from seeds, in the shapes, names and codes of public sets and labelling tools; each text in them says where it
belongs. What `dpo init` reads must be the truth; where it asks, every line must keep all of the data, and one must give the truth.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.made import make
from tests.data.made.verdict import judge

FILES, A_TEST = 2000, 100
REFUSED = 2
"""Files of a hundred that may end in an error line."""


@pytest.mark.parametrize("first", range(0, FILES, A_TEST))
def test_no_made_file_is_inverted_or_loses_data_unsaid(first: int, tmp_path: Path) -> None:
    wrong, refused = list[str](), list[str]()
    for seed in range(first, first + A_TEST):
        made = make(seed)
        verdict = judge(made, tmp_path)
        about = f"{seed}: {made.shape} {made.details}: {verdict.outcome}"
        if verdict.faults:
            wrong.append(f"{about}: {verdict.faults}\n{verdict.said}")
        if verdict.outcome == "refused":
            refused.append(f"{about}: {verdict.said}")
    assert not wrong, "\n".join(wrong)
    assert len(refused) <= REFUSED, "\n".join(refused)
