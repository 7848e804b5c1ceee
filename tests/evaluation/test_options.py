"""Options of a function: kinds and defaults from its signature, help from its docstring."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Optional

import pytest

import truthkit as tk
from truthkit.evaluation.options import body, entry, options_of, summary


def asked(
    data: Path,
    *,
    home: Path | None = None,
    many: int = 3,
    share: Optional[float] = 0.5,  # noqa: UP045
    way: Literal["one", "other"] = "one",
    plain: str = "",
    loud: bool = False,
) -> None:
    """What it is,
    on two lines.

    ANSWERS are lines:
      {"a": 1}

    Args:
        data: a file
        home: a folder, which is the data's
            by default
        many: how many
        share: of the whole
        way: how
        plain: anything
        loud: say it aloud

    Raises:
        ValueError: never
    """


def test_kinds_defaults_and_help() -> None:
    found = options_of(asked)
    assert [option.flag for option in found.values()] == [
        "--home", "--many", "--share", "--way", "--plain", "--loud",
    ]  # fmt: skip
    assert [option.kind for option in found.values()] == [Path, int, float, str, str, bool]
    assert [option.help for option in found.values()] == [
        "a folder, which is the data's by default",
        "how many (default: 3)",
        "of the whole (default: 0.5)",
        "how (default: one)",
        "anything",
        "say it aloud (default: no)",
    ]
    assert (found["way"].choices, found["way"].metavar, found["many"].metavar) == (("one", "other"), "one|other", "N")
    assert (summary(asked), entry(asked, "data")) == ("What it is, on two lines.", "a file")
    assert body(asked) == 'ANSWERS are lines:\n  {"a": 1}'


def test_texts_are_read() -> None:
    found = options_of(asked)
    given = {"home": "x", "many": "4", "share": "1e-3", "way": "other", "plain": "a", "loud": True}
    assert {name: found[name].read(value) for name, value in given.items()} == {  # type: ignore[arg-type]
        "home": Path("x"), "many": 4, "share": 0.001, "way": "other", "plain": "a", "loud": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("many", "four", "--many is 'four'; expected an integer"),
        ("share", "half", "--share is 'half'; expected a number"),
        ("way", "othr", r"--way is 'othr' \(did you mean 'other'\?\); expected one of one, other"),
        ("loud", "yes", "--loud takes no value"),
        ("plain", True, "--plain needs a value"),
    ],
)
def test_what_cannot_be_read(name: str, value: Any, message: str) -> None:
    with pytest.raises(tk.ArgumentError, match=message):
        options_of(asked)[name].read(value)


def test_signatures_that_are_no_options() -> None:
    def listed(data: Path, *, sizes: list[int] = ()) -> None:  # type: ignore[assignment]
        """Nothing."""

    def bare(data: Path, *, size: int) -> None:
        """Nothing."""

    def either(data: Path, *, size: int | str = 1) -> None:
        """Nothing."""

    for function, message in ((listed, "annotated list"), (bare, "has no default"), (either, "annotated int | str")):
        with pytest.raises(tk.ArgumentError, match=message.replace("|", r"\|")):
            options_of(function)
