"""Tables for terminals of any width."""

from __future__ import annotations

import pytest

from dpo_cli.cli.data.columns import table, wrapped

HEADS = ("name", "kind", "memory")
ROWS = [("a", "pairs", "2 GiB"), ("longer", "labelled", "104 GiB")]
NOTES = ["the first", "the second of them"]


@pytest.mark.parametrize("columns", [None, 80, 25])
def test_columns_line_up_where_they_fit(columns: int | None) -> None:
    assert table(HEADS, ROWS, NOTES, columns) == [
        "name    kind      memory",
        "a       pairs     2 GiB",
        "  the first",
        "longer  labelled  104 GiB",
        "  the second of them",
    ]


def test_what_does_not_fit_stands_under_its_row_and_nothing_is_lost() -> None:
    assert table(HEADS, ROWS, NOTES, 24) == [
        "name    kind",
        "a       pairs",
        "  2 GiB; the first",
        "longer  labelled",
        "  104 GiB; the second of",
        "  them",
    ]


def test_a_file_gets_whole_lines_and_a_terminal_whole_words() -> None:
    text = "see recipes/smollm2_polite_dpo_then_kto.yaml for both"

    assert wrapped(text, None) == [text]
    assert wrapped(text, 24) == ["see", "recipes/smollm2_polite_dpo_then_kto.yaml", "for both"]
