"""Files as people send them: what is only unusual is read, what is broken ends in one clear line and exit code 3."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dpo_cli.cli.app import main
from dpo_cli.data.detect.infer import infer
from dpo_cli.recipe.schema import Source
from tests.fakes import pair_rows

ROOT = Path(__file__).resolve().parents[2]
PAIR = {"prompt": "Is the sea blue?", "chosen": "Mostly, yes.", "rejected": "No idea."}
VOTE = {"answer_a": "a", "answer_b": "b", "winner": "a"}
LINE = json.dumps(PAIR) + "\n"
HEAD = "prompt,chosen,rejected\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("bom.csv", ("\ufeff" + HEAD + "q,a,b\n").encode()),
        ("bom.jsonl", ("\ufeff" + LINE).encode()),
        ("semicolons.csv", b"prompt;chosen;rejected\nq;a, really;b\n"),
        ("bars.csv", b"prompt|chosen|rejected\nq|a, really|b\n"),
        ("quoted.csv", (HEAD + '"q\nand more","a ""quoted""",b\n').encode()),
        ("crlf.csv", (HEAD + "q,a,b\n\n").replace("\n", "\r\n").encode()),
        ("index.csv", b",prompt,chosen,rejected\n0,q,a,b\n"),
        ("tabs.tsv", b"prompt\tchosen\trejected\nq\ta, really\tb\n"),
        ("array.jsonl", json.dumps([PAIR], indent=2).encode()),
        ("packed.csv.gz", gzip.compress((HEAD + "q,a,b\n").encode(), mtime=0)),
        ("lines.ndjson", (LINE + "\n").encode()),
    ],
)
def test_unusual_files_are_read(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    found = infer(Source(path=str(tmp_path / name)))
    assert (found.format.name, found.kept, found.unused) == ("pairs", 1, {})


def thumbs(*words):
    return "".join(json.dumps({"prompt": "q", "completion": "a", "label": word}) + "\n" for word in words)


def votes(*winners):
    return "prompt,answer_a,answer_b,winner\n" + "".join(f"q{i},a,b,{w}\n" for i, w in enumerate(winners))


BROKEN = [
    ("latin1.csv", (HEAD + "q,r\u00e9sum\u00e9,b\n").encode("latin-1") * 30, ":2, byte 4: not UTF-8: byte 0xe9"),
    ("latin1.jsonl", LINE.encode() + '{"prompt": "r\u00e9sum\u00e9"}\n'.encode("latin-1") * 30, ":2, byte 14: not UTF-8: byte 0xe9"),
    ("utf16.csv", (HEAD + "q,a,b\n").encode("utf-16"), ": the file is UTF-16, not UTF-8"),
    ("nul.csv", (HEAD + "q,a,\0\n").encode(), ":2, byte 5: a NUL byte"),
    ("unclosed.csv", (HEAD + 'q,a,"b\n' + "q,a,b\n" * 99).encode(), ":2: broken quoting in the row that starts here: unexpected end"),
    ("undoubled.csv", (HEAD + 'q,"say "yes" now",b\n' + "q,a,b\n" * 99).encode(), ":2: broken quoting in the row that starts here"),
    ("uneven.csv", (HEAD + "q,a, really,b\n" * 50).encode(), ":2: the row has not as many fields as the header (3), and 49 more"),
    ("twice.csv", b"prompt,chosen,chosen\nq,a,b\n", ':1: the column "chosen" stands twice'),
    ("alike.csv", b"prompt,chosen;rejected\nq,a;b\n", ":1: ',' and ';' split the header alike"),
    ("headless.csv", b"Is the sea blue?,Mostly.,No.\nq,a,b\n" * 20, ": no column has a known name (a table's first line holds them)"),
    ("missing.csv", b"prompt,chosen,other\nq,a,b\n" * 2, ": no column for rejected of pairs: 'other' may be it"),
    ("words.jsonl", thumbs("up", "down", *["perhaps"] * 40).encode(), ": 'label' holds words that are not understood: \"perhaps\" (40)"),
    ("winners.csv", votes("a", "b", "perhaps", "so-so").encode(), ": 'winner' holds words that are not understood: \"perhaps\" (1), \"so-so\" (1)"),
    ("empty.jsonl", b"\n\n", ": 0 usable rows"),
    ("header.csv", HEAD.encode(), ": 0 usable rows"),
    ("object.json", json.dumps(PAIR, indent=2).encode(), ":1: one JSON object over many lines"),
    ("cut.json", json.dumps([PAIR] * 9)[:-30].encode(), ": invalid JSON"),
    ("last.jsonl", LINE.encode() * 500 + b'{"prompt": "q", "cho', ":501:17: invalid JSON"),
    ("null.jsonl", LINE.encode() * 500 + json.dumps({**PAIR, "chosen": None}).encode(), ':501: "chosen" is null'),
    ("damaged.jsonl.gz", gzip.compress(LINE.encode() * 999, mtime=0)[:-20], ": damaged gzip file"),
    ("images.jsonl", (json.dumps({**PAIR, "images": ["a.png"]}) + "\n").encode() * 30, ':1: "images" is not empty: only text is trained on'),
    ("spelled.csv", (HEAD + "q,\"[{'role': 'assistant', 'content': 'a'\",b\n").encode(), ':2: "chosen" is messages spelled as text'),
    ("same.csv", (HEAD + "q,a,a\n" * 9).encode(), "9 of 9 rows have identical completions"),
    ("comma.csv", b"prompt;chosen;rejected;margin\nq;a;b;1,5\n", ":2: \"margin\" is '1,5', not a number"),
    ("sheet.xlsx", b"PK", ": unknown file type '.xlsx'"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "told"),
    BROKEN,
    ids=lambda value: value if isinstance(value, str) and "." in value[1:12] else "",
)
def test_a_broken_file_ends_in_one_clear_line_and_exit_code_3(
    tmp_path, monkeypatch, capsys, name, content, told
):
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(content)
    monkeypatch.setattr(sys, "argv", ["dpo", "init", name, "--model", "nowhere"])
    with pytest.raises(SystemExit) as ended:
        main()
    out, err = capsys.readouterr()
    assert (ended.value.code, out) == (3, "")
    (line,) = err.splitlines()
    assert line.startswith("dpo: error[3] ") and told in line
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_damaged_parquet_file_ends_the_same_way(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pq.write_table(pa.Table.from_pylist(pair_rows(50)), "a.parquet")
    Path("a.parquet").write_bytes(Path("a.parquet").read_bytes()[:-99])
    monkeypatch.setattr(sys, "argv", ["dpo", "init", "a.parquet", "--model", "nowhere"])
    with pytest.raises(SystemExit) as ended:
        main()
    (line,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == 3 and "damaged or no Parquet file" in line


@pytest.mark.slow
@pytest.mark.parametrize("name", ["big.jsonl", "big.json", "big.csv"])
def test_a_bad_last_line_of_a_gigabyte_is_told_in_bounded_memory(tmp_path, name):
    path = tmp_path / name
    filler = {**PAIR, "chosen": "Mostly, yes. " * 300}
    before, line, last = {
        ".jsonl": ("", json.dumps(filler) + "\n", '{"prompt": oops}\n'),
        ".json": ("[", json.dumps(filler) + ",\n", '{"prompt": oops}]\n'),
        ".csv": (HEAD, ",".join(f'"{text}"' for text in filler.values()) + "\n", 'q,a,"b\n'),
    }[path.suffix]
    block = line * 4096
    with path.open("w") as file:
        file.write(before)
        for _ in range(2**30 // len(block)):
            file.write(block)
        file.write(last)
    process = subprocess.Popen(
        [sys.executable, "-m", "dpo_cli", "init", str(path), "--model", "nowhere"],
        cwd=ROOT, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    peak = []
    watcher = threading.Thread(target=lambda: peak.append(_peak_mib(process.pid)))
    watcher.start()
    _, err = process.communicate()
    watcher.join()
    path.unlink()
    assert process.returncode == 3
    assert len(err.splitlines()) == 1 and ("invalid JSON" in err or "broken quoting" in err)
    assert peak[0] < 400, f"{peak[0]} MiB"


def _peak_mib(pid: int) -> int:
    """Highest resident memory that a process reports until it ends."""
    highest = 0
    while True:
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:
            return highest
        found = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
        if not found:
            return highest
        highest = int(found[0]) // 1024
        threading.Event().wait(0.2)
