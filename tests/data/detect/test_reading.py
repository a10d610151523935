"""Files to rows: every broken line is named, every readable one is read."""

from __future__ import annotations

import csv
import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dpo_cli.data.sources import json_array, lines
from dpo_cli.data.sources.files import read_source
from dpo_cli.data.sources.placed_rows import Problems
from dpo_cli.errors import DataError
from dpo_cli.recipe.schema import Source
from tests.data.build import parse, read
from tests.fakes import pair_rows, write_jsonl

ROW = {"prompt": "p", "chosen": "c", "rejected": "r"}


def test_every_file_type_gives_the_same_rows(tmp_path):
    rows = [*pair_rows(4), {"prompt": 'two\nlines, "quoted"', "chosen": "a;b\tc", "rejected": "é"}]
    write_jsonl(tmp_path / "a.jsonl", rows)
    (tmp_path / "a.json").write_text(json.dumps(rows, indent=1))
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress((tmp_path / "a.jsonl").read_bytes()))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    (tmp_path / "b.jsonl").write_text(json.dumps(rows))
    for name, separator in (("a.csv", ","), ("b.csv", ";"), ("a.tsv", "\t")):
        write_table(tmp_path / name, rows, separator)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress((tmp_path / "a.csv").read_bytes()))
    names = [path.name for path in tmp_path.iterdir()]
    assert len(names) == 9
    for name in names:
        assert [row.values for row in read(tmp_path / name)] == rows, name


def write_table(path, rows, separator=","):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], delimiter=separator)
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_rows_of_an_array_know_their_line(tmp_path):
    (tmp_path / "a.json").write_text('[\n  {"a": 1},\n\n  {"a":\n 2}]\n')
    assert [row.place.rpartition(":")[2] for row in read(tmp_path / "a.json")] == ["2", "4"]


def test_an_array_is_read_in_pieces_that_cut_it_anywhere(tmp_path, monkeypatch):
    rows = [{"a": [1, {"b": "\u00e9\\ \n"}], "n": i} for i in range(40)]
    (tmp_path / "a.json").write_text("\ufeff" + json.dumps(rows, indent=1, ensure_ascii=False))
    whole = read(tmp_path / "a.json")
    assert [row.values for row in whole] == rows
    for size in (1, 7, 64):
        monkeypatch.setattr(json_array, "CHUNK_BYTES", size)
        assert read(tmp_path / "a.json") == whole


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[{"a": 1} {"a": 2}]', "a.json:1:11: invalid JSON: Expecting ',' delimiter"),
        ('[{"a": 1},\n]', "a.json:2:1: invalid JSON: Expecting value"),
        ('[{"a": 1}', "a.json:1:10: invalid JSON: Expecting ',' delimiter"),
        ('[{"a": 1}]\n{}', "a.json:2:1: invalid JSON: Extra data"),
        ('[\n{"a": 1},\n{"a": oops}]', "a.json:3:7: invalid JSON: Expecting value"),
        ("[" * 100_000, "a.json:1:2: invalid JSON: nested too deeply"),
        ('[{"a": 1}, 2]', "a.json:1: expected a JSON object, found int"),
        ('{\n  "prompt": "p"\n}', "a.json:1: one JSON object over many lines"),
    ],
)
def test_fault_048_a_broken_array_is_one_line_with_its_place(tmp_path, text, told):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError) as error:
        read(tmp_path / "a.json")
    assert told in str(error.value)
    assert len(error.value.problems) == 1


def test_a_row_of_a_table_is_named_by_the_line_it_starts_on(tmp_path):
    (tmp_path / "a.csv").write_bytes(b'\xef\xbb\xbfprompt,chosen\r\n"one\r\ntwo",c\r\n\r\nthree,d\r\n')
    rows = read(tmp_path / "a.csv")
    assert [row.place.rpartition(":")[2] for row in rows] == ["2", "5"]
    assert [row.values["prompt"] for row in rows] == ["one\r\ntwo", "three"]


def test_messages_in_a_cell_are_read_and_an_index_without_a_name_is_left_out(tmp_path):
    turns = [{"role": "user", "content": "q"}]
    write_table(tmp_path / "a.csv", [{"": 0, "prompt": json.dumps(turns), "completion": '[{"x": 1}]'}])
    (row,) = read(tmp_path / "a.csv")
    assert row.values == {"prompt": turns, "completion": '[{"x": 1}]'}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b'a,b\n1,"2\n3,4\n', "a.csv:2: broken quoting in the row that starts here"),
        (b'a,b\n1,2\n"3"x,4\n', "a.csv:3: broken quoting in the row that starts here"),
        (b'"a,b\n1,2\n', "a.csv:1: broken quoting in the header"),
        (
            b"a,b\n1\n1,2,3\n1,2\n",
            "a.csv:2: the row has not as many fields as the header (2), and 1 more rows like it",
        ),
        (b"a,b,a\n1,2,3\n", 'a.csv:1: the column "a" stands twice'),
        (b"a,b;c\n1,2;3\n", "a.csv:1: ',' and ';' split the header alike"),
        (
            b"a,b\ncaf\xe9,\xe9\n",
            "a.csv:2, byte 4: not UTF-8: byte 0xe9 ('\u00e9' if the file is in Windows-1252)",
        ),
        (
            "a,b\n1,2\n".encode("utf-16"),
            "a.csv: the file is UTF-16, not UTF-8. Fix: save the file as UTF-8, as in `iconv",
        ),
        (b"a,b\n1,\0\n", "a.csv:2, byte 3: a NUL byte"),
    ],
)
def test_a_broken_table_is_one_line_with_its_place(tmp_path, content, told):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(DataError) as error:
        read(tmp_path / "a.csv")
    assert told in str(error.value)
    assert len(error.value.problems) == 1


def test_a_quote_that_is_never_closed_does_not_swallow_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 1000)
    (tmp_path / "a.csv").write_text('a,b\n1,"2\n' + "3,4\n" * 5000)
    with pytest.raises(DataError, match=r"a\.csv:2: broken quoting .*field larger"):
        read(tmp_path / "a.csv")


def test_rows_are_read_again_in_every_pass_and_their_problems_told_once(tmp_path):
    problems = Problems()
    (tmp_path / "a.jsonl").write_text('{"a": 1}\nbroken\n{"a": 2}\n')
    rows = read_source(Source(path=str(tmp_path / "a.jsonl")), "data.train[0]", problems)
    assert list(rows) == list(rows)
    assert problems.count == 1


def test_glob_gives_all_files_in_order(tmp_path):
    for name in ("b.jsonl", "a.jsonl"):
        write_jsonl(tmp_path / name, [{"name": name}])
    assert [row.values["name"] for row in read(tmp_path / "*.jsonl")] == ["a.jsonl", "b.jsonl"]


def test_limit_takes_the_first_rows(tmp_path):
    rows = pair_rows(5)
    assert [row.values for row in read(write_jsonl(tmp_path / "a.jsonl", rows), limit=2)] == rows[:2]


def test_fault_044_empty_files_and_blank_lines_hold_no_rows(tmp_path):
    (tmp_path / "a.jsonl").write_text("\n\n  \r\n")
    assert read(tmp_path / "a.jsonl") == []


def test_fault_048_invalid_json_names_line_and_column_beyond_10_mb(tmp_path):
    line = json.dumps({**ROW, "filler": "x" * 1_000_000}) + "\n"
    (tmp_path / "a.jsonl").write_text(line * 12 + '{"prompt": oops}\n')
    with pytest.raises(DataError) as error:
        read(tmp_path / "a.jsonl")
    assert "a.jsonl:13:12: invalid JSON" in str(error.value)


def test_fault_048_a_cut_array_names_its_line(tmp_path):
    (tmp_path / "a.json").write_text('[\n{"prompt": "p"},\n')
    with pytest.raises(DataError, match=r"a\.json:3:1: invalid JSON"):
        read(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b'{"prompt": "\xff"}', "a.jsonl:2, byte 13: not UTF-8: byte 0xff"),
        (b'{"prompt": "\0"}', "a.jsonl:2, byte 13: a NUL byte"),
        (b'{"prompt": "\\ud800 x"}', "a.jsonl:2, byte 13: a NUL or a lone surrogate"),
        (b'{"prompt": "\\u0000"}', "a.jsonl:2, byte 13: a NUL or a lone surrogate"),
    ],
)
def test_fault_049_text_that_no_tokenizer_takes_names_line_and_byte(tmp_path, line, told):
    (tmp_path / "a.jsonl").write_bytes(b"{}\n" + line + b"\n")
    with pytest.raises(DataError) as error:
        read(tmp_path / "a.jsonl")
    assert told in str(error.value)


def test_fault_049_bom_crlf_line_separators_and_pairs_are_accepted(tmp_path):
    content = '\ufeff{"a": "1\u2028\u2029\x85"}\r\n{"a": "\\ud83d\\ude00 \\\\ud800"}\r\n'
    (tmp_path / "a.jsonl").write_bytes(content.encode())
    assert [row.values["a"] for row in read(tmp_path / "a.jsonl")] == [
        "1\u2028\u2029\x85",
        "\U0001f600 \\ud800",
    ]


def test_fault_050_a_huge_line_is_refused_without_being_read(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 1000)
    (tmp_path / "a.jsonl").write_text('{"a": "' + "x" * 5000)
    with pytest.raises(DataError, match=r"a\.jsonl:1: the line is longer than"):
        read(tmp_path / "a.jsonl")


def test_lines_broken_alike_are_one_line_with_a_count_and_three_places(tmp_path):
    (tmp_path / "a.jsonl").write_text("{\n" * 50)
    with pytest.raises(DataError) as error:
        read(tmp_path / "a.jsonl")
    assert len(error.value.problems) == 1
    assert "a.jsonl:1:1: invalid JSON" in str(error.value)
    assert "50 rows in all (also :2:1, :3:1, ...)" in str(error.value)


def test_twenty_kinds_of_broken_rows_are_told_in_words_then_a_count():
    rows = [{**ROW, "margin": f"much {i}"} for i in range(50)]
    with pytest.raises(DataError) as error:
        parse(rows)
    assert len(error.value.problems) == 21
    assert "and 30 more problems of other kinds" in str(error.value.problems[-1])


@pytest.mark.parametrize(
    "damage", [lambda raw: raw[: len(raw) // 2], lambda raw: raw[:60] + b"\xff" + raw[61:]]
)
def test_fault_060_damaged_parquet_is_refused(tmp_path, damage):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist(pair_rows(50)), path, write_page_checksum=True, compression="none")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match="damaged or no Parquet file"):
        read(path)


def test_damaged_gzip_is_refused(tmp_path):
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b"{}\n" * 1000)[:-12])
    with pytest.raises(DataError, match="damaged gzip file"):
        read(tmp_path / "a.jsonl.gz")


def test_fault_062_nothing_matched_names_the_resolved_pattern(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=f"no file matches '{tmp_path}/x/\\*.jsonl'"):
        read("x/*.jsonl")


def test_fault_062_a_folder_is_answered_with_a_glob(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", [ROW])
    with pytest.raises(DataError, match=rf"is a folder. Fix: {tmp_path}/\*.jsonl"):
        read(tmp_path)


def test_fault_062_a_hub_name_while_offline_is_one_clear_line(monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        DataError, match=r"cannot load data set 'no-such-org/no-such-set'.*go online once"
    ) as error:
        read("no-such-org/no-such-set")
    assert len(error.value.lines()) == 1


def test_a_saved_data_set_is_read_by_split(tmp_path):
    import datasets

    saved = datasets.DatasetDict({"train": datasets.Dataset.from_list(pair_rows(3))})
    saved.save_to_disk(tmp_path / "set")
    assert [row.values for row in read(tmp_path / "set")] == pair_rows(3)
    with pytest.raises(DataError, match=r"has \['train'\], not 'dev'"):
        read(tmp_path / "set", split="dev")


def test_fault_046_a_missing_column_is_named_with_the_key_that_maps_it():
    with pytest.raises(DataError) as error:
        parse([{"prompt": "p", "chosen": "c", "bad": "r"}] * 3)
    assert "no \"rejected\"; found ['bad', 'chosen', 'prompt']" in str(error.value)
    assert "Fix: data.train[0].columns.rejected=<name>" in str(error.value)
    with pytest.raises(DataError, match=r'no "chosen", "rejected"; .* `dpo init`, which knows'):
        parse([{"Prompt": "p", "Chosen": "c", "Rejected": "r"}] * 3)


def test_fault_046_columns_map_names(tmp_path):
    renamed = [{"question": "p", "yes": "c", "no": "r"}]
    parsed = parse(
        renamed, columns={"prompt": "question", "chosen": "yes", "rejected": "no"}, has_template=False
    )
    assert (parsed.examples[0].prompt, parsed.examples[0].completions) == ("p", ("c", "r"))


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ({"prompt": "p", "chosen": "c"}, 'rows.jsonl:2: "rejected" is absent'),
        ({**ROW, "rejected": None}, 'rows.jsonl:2: "rejected" is null'),
        ({**ROW, "rejected": 3}, 'rows.jsonl:2: "rejected" is a number, not text'),
        ({**ROW, "prompt": ["p"]}, 'rows.jsonl:2: "prompt[0]" is text, not a message'),
    ],
)
def test_fault_047_a_field_that_is_absent_null_or_mistyped_names_its_line(broken, told):
    with pytest.raises(DataError) as error:
        parse([ROW, broken, ROW])
    assert told in str(error.value)


def test_fault_059_mixed_types_are_refused_and_extra_columns_noted_once():
    with pytest.raises(DataError, match=r'rows\.jsonl:2: "chosen" is an object, not text'):
        parse([ROW, {**ROW, "chosen": {"a": 1}}])
    assert parse([{**ROW, "score": 1}, {**ROW, "id": 2}]).unused_columns == ["id", "score"]
