"""What a line that `dpo init` offers says of a file."""

from __future__ import annotations

import shlex

from dpo_cli.cli.data.files import Stated
from dpo_cli.recipe.schema import Source


def pasted(line: str) -> Source:
    """The source that a whole command of `dpo init FILE ...` states."""
    words = iter(shlex.split(line)[2:])
    path, said = next(words), {"--column": [], "--label": [], "--ignore": []}
    one = {"--format": "auto", "--better": None, "--gather": "rows", "--skip-null": False}
    for word in words:
        if word in said:
            said[word].append(next(words))
        elif word == "--skip-null":
            one[word] = True
        else:
            assert word in one, f"{word} is no option: {line}"
            one[word] = next(words)
    return Stated(
        one["--format"], said["--column"], said["--label"], one["--better"], one["--gather"], said["--ignore"], one["--skip-null"]
    ).source(path)  # fmt: skip
