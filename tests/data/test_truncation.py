"""Groups within `max_length`: nothing is kept that cannot be learnt from, nothing is lost in silence."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpo_cli.data.row_notes import Note, Reason
from dpo_cli.data.tokenize.truncate import fit
from dpo_cli.types import TokenGroup
from tests.data.build import chat, config, encode_one
from tests.fakes import byte_tokenizer

BOS = 1


def group(n_prompt, *completions):
    ids = [np.array(c, dtype=np.int32) for c in completions]
    prompt = np.arange(100, 100 + n_prompt, dtype=np.int32)
    prompt[0] = BOS
    return TokenGroup(prompt, tuple(ids), tuple(np.ones(len(i), dtype=bool) for i in ids), "rows.jsonl:1")


@st.composite
def groups(draw):
    completion = st.lists(st.tuples(st.integers(5, 8), st.booleans()), min_size=1, max_size=12)
    pairs = [draw(completion) for _ in range(draw(st.integers(1, 3)))]
    ids = tuple(np.array([t for t, _ in pair], dtype=np.int32) for pair in pairs)
    masks = tuple(np.array([*(m for _, m in pair[:-1]), True]) for pair in pairs)
    prompt = draw(st.lists(st.integers(1, 4), min_size=1, max_size=12))
    return TokenGroup(np.array(prompt, dtype=np.int32), ids, masks, "rows.jsonl:1")


@given(
    whole=groups(),
    max_length=st.integers(2, 24),
    long_prompt=st.sampled_from(["drop", "cut_start"]),
    long_completion=st.sampled_from(["cut_end", "drop"]),
)
def test_fault_055_every_kept_row_fits_has_a_prompt_and_is_scored_on_all_sides(
    whole, max_length, long_prompt, long_completion
):
    settings = config(max_length=max_length, long_prompt=long_prompt, long_completion=long_completion)
    encoded = fit(whole, Note(0), settings, BOS)
    if encoded.group is None:
        assert encoded.reason is not None
        return
    kept = encoded.group
    assert len(kept.prompt) >= 1
    assert all(n >= 1 for n in kept.scored)
    assert all(len(kept.prompt) + len(ids) <= max_length for ids in kept.completions)
    assert len(kept.completions) == 1 or len({ids.tobytes() for ids in kept.completions}) > 1
    for ids, mask, old, old_mask in zip(
        kept.completions, kept.masks, whole.completions, whole.masks, strict=True
    ):
        assert len(ids) == len(mask)
        assert (ids == old[: len(ids)]).all() and (mask == old_mask[: len(mask)]).all()
    is_changed = [len(kept.prompt), *map(len, kept.completions)] != [
        len(whole.prompt),
        *map(len, whole.completions),
    ]
    assert (Note.CUT in encoded.notes) == is_changed
    cut_ends = any(len(a) < len(b) for a, b in zip(kept.completions, whole.completions, strict=True))
    assert (Note.END_LOST in encoded.notes) == cut_ends
    assert not (cut_ends and long_completion == "drop")
    assert len(kept.prompt) == len(whole.prompt) or long_prompt == "cut_start"


@pytest.mark.parametrize(
    ("n_prompt", "reason"), [(9, None), (10, Reason.LONG_PROMPT), (11, Reason.LONG_PROMPT)]
)
def test_fault_055_a_prompt_as_long_as_max_length_is_dropped(n_prompt, reason):
    assert fit(group(n_prompt, [5], [6]), Note(0), config(max_length=10), BOS).reason is reason


def test_fault_055_a_row_whose_cut_completion_has_only_context_is_dropped():
    whole = group(4, [5, 5, 6], [7])
    masked = TokenGroup(whole.prompt, whole.completions, (np.array([False, False, True]), whole.masks[1]))
    assert fit(masked, Note(0), config(max_length=6), BOS).reason is Reason.NOTHING_SCORED


def test_fault_056_completions_that_are_the_same_after_the_cut_are_dropped():
    assert (
        fit(group(4, [5, 5, 6], [5, 5, 7]), Note(0), config(max_length=6), BOS).reason
        is Reason.SAME_AFTER_CUT
    )


def test_cut_start_keeps_the_bos_and_the_end_of_the_prompt():
    encoded = fit(group(8, [5, 5, 5], [6]), Note(0), config(max_length=8, long_prompt="cut_start"), BOS)
    assert encoded.group.prompt.tolist() == [BOS, 104, 105, 106, 107]
    assert encoded.notes == Note.CUT


def test_cut_start_leaves_half_to_the_prompt():
    encoded = fit(group(8, [5] * 20, [6]), Note(0), config(max_length=8, long_prompt="cut_start"), BOS)
    assert (len(encoded.group.prompt), len(encoded.group.completions[0])) == (4, 4)


def test_long_completion_drop_costs_the_row():
    settings = config(max_length=8, long_completion="drop")
    assert fit(group(4, [5] * 20, [6]), Note(0), settings, BOS).reason is Reason.LONG_COMPLETION


def test_a_cut_answer_is_noted_with_its_lost_end_token():
    encoded = encode_one(chat("q", "a" * 50, "b"), byte_tokenizer(), max_length=40)
    assert encoded.notes == Note.CUT | Note.END_LOST
