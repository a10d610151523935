"""Words and short sentences that say which of two answers is better, as people and judges write them."""

from __future__ import annotations

import re

_NOUN = r"(?:(?:the|response|answer|model|option|assistant|completion|candidate|output|summary|reply|text|system)[\s_-]+)*"
_SIDE = rf"{_NOUN}(?P<side>a|b|[012]|first|second|left|right)(?:[\s_-]+(?:one|response|answer|model|option))?"
_HOW = r"(?:(?:much|far|slightly|significantly|clearly|somewhat|strongly|marginally|a|bit|little|lot|is|was|are)[\s_-]+)*"
_BETTER = rf"(?:wins|won|win|{_HOW}(?:better|best|preferred|favou?red|winner|stronger))"
_WORSE = rf"(?:loses|lost|{_HOW}(?:worse|worst|rejected|weaker))"
_SAYS = re.compile(rf"{_SIDE}(?:[\s_-]+(?:(?P<better>{_BETTER})|(?P<worse>{_WORSE})))?")
_PREFERS = re.compile(rf"(?:i |we )?(?:{_HOW})?(?:prefers?|chose|choose|picked?)[\s_-]+{_SIDE}")
_SIGNS = re.compile(r"\[*(?P<one>a|b|1|2)\s*(?P<sign>>+|<+|=+|~=?|≈)\s*(?P<other>a|b|1|2)\]*")
_TIE = re.compile(
    r"(?:it(?: i|')s )?(?:a )?(?:tie|draw|tied|(?:about |roughly |nearly )?(?:the )?(?:same|equal|equally good|equally bad)|no preference|"
    r"no difference|both(?: are)?(?: equally)?(?: good| bad)?|neither(?: is better)?|undecided|can(?:no|')t (?:decide|say)|not sure)"
)
_SIDES = {"a": "a", "b": "b", "first": "a", "second": "b", "left": "a", "right": "b"}


def verdict_in(text: str, one: str, two: str) -> str | None:
    """Return a, b or tie: what a word or sentence of a winner column says; None where it says nothing known.

    Args:
        text: in small letters.
        one: the number of the first answer, as `1`; empty where numbers say nothing.
        two: that of the second one.
    """
    text = text.strip(" .!")
    if text.isdigit():
        return None  # a number alone is no sentence
    if _TIE.fullmatch(text):
        return "tie"
    sides = _SIDES | ({one: "a", two: "b"} if one and two else {})
    if matched := _SIGNS.fullmatch(text):
        first, other = sides.get(matched["one"]), sides.get(matched["other"])
        if first is None or other is None or first == other:
            return None
        return "tie" if matched["sign"][0] in "=~≈" else first if matched["sign"][0] == ">" else other
    if matched := _PREFERS.fullmatch(text):
        return sides.get(matched["side"])
    if matched := _SAYS.fullmatch(text):
        side = sides.get(matched["side"])
        return {"a": "b", "b": "a"}.get(side or "") if matched["worse"] else side
    return None
