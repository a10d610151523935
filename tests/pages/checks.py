"""What every page promises: it is one file, loads nothing, runs nothing, and its elements are closed."""

from __future__ import annotations

from html.parser import HTMLParser

from dpo_cli.reports.html.render import MAX_BYTES

VOID = {"meta", "link", "br"}
LOADING = {
    "script",
    "iframe",
    "object",
    "embed",
    "img",
    "video",
    "audio",
    "source",
    "base",
    "form",
    "image",
    "use",
}
ADDRESSES = {"src", "href", "srcset", "action", "data", "poster", "xlink:href"}


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.styles: list[str] = []
        self.problems: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in LOADING:
            self.problems.append(f"<{tag}>")
        for name, value in attrs:
            if name.startswith("on") or (name in ADDRESSES and not str(value).startswith("data:")):
                self.problems.append(f"<{tag} {name}={value}>")
            if name == "style" and "url" in str(value):
                self.problems.append(f"<{tag} style={value}>")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.problems.append(f"</{tag}> closes nothing")

    def handle_data(self, data: str) -> None:
        (self.styles if self.open and self.open[-1] == "style" else self.text).append(data)


def text_of_page(page: bytes) -> str:
    """Check the page and give what a reader sees of it, on one line."""
    assert len(page) < MAX_BYTES
    seen = _Page()
    seen.feed(page.decode("utf-8"))
    assert seen.problems == [] and seen.open == []
    assert "url(" not in (style := "".join(seen.styles)) and "@import" not in style
    assert "prefers-color-scheme: dark" in style
    assert b"default-src 'none'" in page
    return " ".join(" ".join(seen.text).split())
