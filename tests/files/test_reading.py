"""Files as people have them, and what is wrong with them in one line. Oracle: the records that were written."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest

import truthkit as tk
from truthkit.files import tables
from truthkit.files.reading import Record, read_json, read_records, read_text, read_texts

RECORDS = [{"a": "1, one", "b": 'say "hi"'}, {"a": "é\u2028", "b": "; two"}]
LINES = "\n".join(map(json.dumps, RECORDS))
NESTED = b"[" * 10_000 + b"]" * 10_000


def written(folder: Path, name: str, content: str | bytes) -> Path:
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder / name


def test_the_same_records_in_every_form(tmp_path: Path) -> None:
    forms: list[tuple[str, str | bytes]] = [
        ("lines.jsonl", LINES),
        ("windows.jsonl", ("\ufeff" + LINES + "\n").replace("\n", "\r\n")),
        ("blank lines.jsonl", "\n\n" + LINES.replace("\n", "\n \n")),
        ("array.json", json.dumps(RECORDS)),
        ("indented.json", json.dumps(RECORDS, indent=2)),
        ("objects in a row.json", "\n".join(json.dumps(one, indent=2) for one in RECORDS)),
        ("wide.json", LINES.encode("utf-16")),
        ("comma.csv", 'a,b\n"1, one","say ""hi"""\né\u2028,; two\n'),
        ("windows.csv", '\ufeffa,b\r\n"1, one","say ""hi"""\r\n\r\né\u2028,; two\r\n'),
        ("semicolon.csv", 'a;b\n1, one;"say ""hi"""\né\u2028;"; two"\n'),
        ("tab.tsv", 'a\tb\n1, one\t"say ""hi"""\né\u2028\t; two\n'),
        ("plain quotes.tsv", 'a\tb\n1, one\tsay "hi"\né\u2028\t; two\n'),
    ]
    wrong = [name for name, text in forms if [r.fields for r in read_records(written(tmp_path, name, text))] != RECORDS]
    assert not wrong
    (one,) = read_records(written(tmp_path, "one.json", json.dumps(RECORDS[0], indent=2)))
    assert one == Record("one.json, line 1", RECORDS[0])
    assert read_records(tmp_path / "comma.csv")[1].place == "comma.csv, line 3"
    assert read_records(tmp_path / "indented.json")[1].place == "indented.json, record 2"


def test_sheets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, "a.xlsx", b"PK")
    if find_spec("openpyxl") is None:
        with pytest.raises(tk.MissingExtraError, match=r"a\.xlsx needs openpyxl: `pip install pandas openpyxl`"):
            read_records(path)
    frame = SimpleNamespace(to_dict=lambda _: [{"a": "1", 5: "x"}])
    fake = SimpleNamespace(read_excel=lambda *_, **__: frame)
    monkeypatch.setattr(tables, "find_spec", lambda name: name)
    monkeypatch.setitem(sys.modules, "pandas", fake)
    assert read_records(path) == [Record("a.xlsx, row 2", {"a": "1", "5": "x"})]

    def damaged(*_: object, **__: object) -> None:
        raise KeyError("no sheet")

    monkeypatch.setattr(fake, "read_excel", damaged)
    with pytest.raises(tk.ArgumentError, match=r"no readable \.xlsx \(KeyError"):
        read_records(path)


def test_what_is_wrong_is_one_line(tmp_path: Path) -> None:
    cases: list[tuple[str, str | bytes, str]] = [
        ("deep.json", NESTED, "deep.json, line 1: its JSON is nested too deeply"),
        ("deep.jsonl", b'{"a": 1}\n' + NESTED, "deep.jsonl, line 2: its JSON is nested too deeply"),
        ("digits.json", '{"a": ' + "9" * 5000 + "}", "an integer has 5000 digits; expected 300 at most"),
        ("half.json", '{"a": "\\ud83d"}', "a character is no text"),
        ("cut.json", '{\n "a": 1,\n "b"', "cut.json, line 1: not JSON: Expecting ':' delimiter (line 3, column 5)"),
        ("two.jsonl", '{"a": 1} {"a": 2}', "two.jsonl, line 1: not JSON: Extra data"),
        ("bytes.jsonl", b'{"a": "\xff"}', "bytes.jsonl, line 1: not UTF-8"),
        ("number.json", "5", "expected a JSON object, found 5"),
        ("none.json", "", "none.json has no records"),
        ("head.csv", "a,b\n", "head.csv has no records"),
        ("twice.csv", "a,a\n1,2\n", "the head has the column 'a' twice"),
        ("long.csv", "a\n1,2\n", "line 2: 2 cells, but the head has 1 columns"),
        ("open.csv", 'a,b\n1,"2\n', "not a table: unexpected end of data"),
        ("latin.csv", b"a\n\xe9\n", "is not UTF-8 text"),
    ]
    said = {}
    for name, content, _ in cases:
        with pytest.raises(tk.ArgumentError) as error:
            read_records(written(tmp_path, name, content))
        said[name] = str(error.value)
    assert not [(said[name], message) for name, _, message in cases if message not in said[name]]
    for path, kind in ((Path("/dev/zero"), "is a device"), (tmp_path, "is a folder")):
        with pytest.raises(tk.ArgumentError, match=kind):
            read_text(path)
    with pytest.raises(tk.ArgumentError, match="line 2: not JSON: Extra data"):
        read_json(written(tmp_path, "more.json", "{}\n{}"))


def test_fields_that_compete() -> None:
    record = Record("f, line 1", {"answer": "yes", "prediction": "Yes", "text": "", "output": "yes", "n": 3})
    assert record.text("answer", "output", "text") == "yes"  # alike, and nothing, are no competition
    assert record.text("text", default="x") == ""
    assert record.text("none", default="x") == "x"
    with pytest.raises(tk.ArgumentError, match=r"'answer' is 'yes' and 'prediction' is 'Yes'; name the one .* --field"):
        record.text("answer", "prediction", option="--field")
    for names, message in ((("n",), "'n' is 3; expected text"), (("m", "o"), "no 'm' or 'o'; its fields are answer,")):
        with pytest.raises(tk.ArgumentError, match=message):
            record.text(*names)


def test_texts(tmp_path: Path) -> None:
    forms = {
        "t.json": '["One.", "Two."]',
        "t.jsonl": '{"text": "One."}\n"Two."',
        "t.csv": "id,text\n1,One.\n2,Two.\n",
        "t.txt": "One.\r\n\r\nTwo.\r\n",
    }
    wrong = [
        name for name, text in forms.items() if read_texts(written(tmp_path, name, text), "text") != ["One.", "Two."]
    ]
    assert not wrong
    for name, content, message in (("n.json", "[1]", "found 1"), ("b.txt", " \n", "holds no texts")):
        with pytest.raises(tk.ArgumentError, match=message):
            read_texts(written(tmp_path, name, content), "text")
