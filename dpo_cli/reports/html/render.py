"""Pages from templates of this package: one file each, every text escaped, no script, nothing loaded from anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

TEMPLATES = Path(__file__).parent / "templates"
MAX_BYTES = 2_000_000
"""Of a page: it is mailed, and opened on a phone."""


def rendered(template: str, facts: Mapping[str, Any]) -> bytes:
    """Return the page of a template in UTF-8; a value that it names and `facts` lacks is our mistake and raises."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    from dpo_cli.reports.charts.svg import svg
    from dpo_cli.reports.charts.text import plain

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else plain(value),
    )
    environment.filters["chart"] = lambda picture: Markup(svg(picture))  # escapes what it is given itself
    return environment.get_template(template).render(**facts).encode("utf-8")
