"""Names with options in one line: what is written is read back, and a + or a comma in a sentence stays in it."""

from __future__ import annotations

import itertools

from truthkit.written import join_options, split_name, split_options, split_sum

VALUES = (
    "",
    "1",
    "a,b",
    "a, b=c",
    '"',
    '"a"',
    '"a", b=1',
    "x+one",
    "one+two:a=1",
    "\\",
    "é\n=,",
    " a ",
    "a=b,c=d",
    "+",
    ",=",
)


def test_what_is_joined_is_split_again() -> None:
    for first, second in itertools.product(VALUES, repeat=2):
        options = {"p": first, "q": second}
        text = join_options("one", options, ["one", "two"])
        assert split_name(text) == ("one", [("p", first), ("q", second)])
        assert split_sum(text, ["one", "two"]) == [text]
        whole = f"two:k=1+{text}+two"
        assert split_sum(whole, ["one", "two"]) == ["two:k=1", text, "two"]


def test_parts() -> None:
    assert split_name(" one : a=1 , b = 2,3") == ("one ", [("a", "1"), ("b", "2,3")])
    assert split_options("") == []
    assert split_options("a") == [("a", "")]
    assert split_options('a="x, b=1",b=2') == [("a", "x, b=1"), ("b", "2")]
    assert split_sum("one:a=1+2+two", ["one", "two"]) == ["one:a=1+2", "two"]
    assert split_sum("one+onetwo", ["one", "onetwo"]) == ["one", "onetwo"]
    assert split_sum("onetwo", []) == ["onetwo"]
