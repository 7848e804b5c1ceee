"""A study's file: what it may say, and what is said of one that makes no sense."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from truthkit import cli
from truthkit.errors import ArgumentError, NotAvailableError
from truthkit.study.places import Places
from truthkit.study.reading import read_study
from truthkit.study.way import Way


def changed(study: Path, old: str, new: str) -> Path:
    text = study.read_text()
    assert old in text, old
    study.write_text(text.replace(old, new, 1))
    return study


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('name = "Tiny"\n', "", "has no name"),
        ("margin = 0.05\n", "", r"number 1: memotrap has no margin; say which difference"),
        ("margin = 0.05", "margin = -1", "margin is -1; expected a number of at least 0"),
        ("resamples", "resample", "no key 'resample' .did you mean 'resamples'"),
        ("resamples = 500", "alpha = 5", "alpha is 5; expected a number between 0 and 0.5"),
        ('task = "memotrap"', 'task = "memotrp"', "there is no task 'memotrp' .did you mean 'memotrap'"),
        ('decoder = "adacad"', 'decoder = "adacat"', "number 3: there is no decoder 'adacat' .did you mean 'adacad'"),
        ("alpha = [", "alhpa = [", "number 1: decoder 'cad' has no option 'alhpa' .did you mean 'alpha'"),
        ("[0.5, 2]", "0.5", "the grid's alpha is 0.5; expected a list"),
        ("[0.5, 2]", "[1, 1]", "its grid has a value twice"),
        ('decoder = "cad"', 'decoder = "cad:alpha=1"', "the grid has 'alpha', which 'cad:alpha=1' states already"),
        ('decoder = "adacad"', 'decoder = "greedy"', "greedy is in every set already"),
        ('decoder = "adacad"', 'decoder = "cad"', "there is a method 'cad' already; give it an id"),
        ('tasks = ["memotrap"]', 'tasks = ["memotrp"]', "'cad' is for the task 'memotrp' .did you mean 'memotrap'"),
        ('scorer = "none"', 'scorers = "none"', "open-ended has no option 'scorers'"),
        ("limit = 6", "limit = 0", "limit is 0; expected an integer of at least 1"),
        ("[[model]]", "[model]", r"'model' is .*; write \[\[model\]\] above each"),
        ("[[model]]", "[[model", "is no TOML"),
    ],
)
def test_errors_name_their_place(study: Path, old: str, new: str, said: str) -> None:
    file = changed(study, old, new)
    with pytest.raises(ArgumentError, match=said):
        read_study(file, Places(file.parent, {"DATA": str(file.parent)}))


def test_a_variable_is_relative_to_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OTHER", "there")
    places = Places(tmp_path / "studies", {"DATA": "here"})
    assert places.place("${DATA}/set") == tmp_path / "here" / "set"
    assert places.place("${OTHER}/set") == tmp_path / "there" / "set"
    assert places.place("set") == tmp_path / "studies" / "set"


def test_what_is_not_there(study: Path) -> None:
    places = Places(study.parent, {"DATA": str(study.parent)})
    with pytest.raises(ArgumentError, match="has the variable DATA, which has no value; give it with --set DATA=PATH"):
        read_study(study)
    with pytest.raises(NotAvailableError, match=r"number 1: the data of memotrap, .*nowhere.csv', is not there"):
        read_study(changed(study, "traps.csv", "nowhere.csv"), places)
    with pytest.raises(NotAvailableError, match="there is no file"):
        read_study(study.with_name("none.toml"))
    changed(study, "nowhere.csv", "traps.csv")
    with pytest.raises(NotAvailableError, match=r"steering by 'v.safetensors:2': there is no file"):
        read_study(changed(study, 'decoder = "adacad"', 'steer = "v.safetensors:2"'), places)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            'tasks = ["memotrap"]\n\n[[method]]\ndecoder = "dola',
            '\n[[method]]\ndecoder = "dola',
            "say what 'cad' is for",
        ),
        ('decoder = "adacad"', 'decoder = "vcd"', "has no pictures, which vcd compares; say what 'vcd' is for"),
        ('decoder = "adacad"', 'decoder = "adacad"\nsample = true', "writes no answers, so that nothing can be drawn"),
        ("margin = 0.05", "margin = 2", "accuracy is a share from 0 to 1; expected less than 1"),
        ("development = 0.4", "development = 0.0", "has no development items, on which 'cad' could choose"),
        ('decoder = "adacad"', 'decoder = "adacad"\nmodels = ["tiny"]\noptions = { x = 1 }', "has no option 'x'"),
    ],
)
def test_methods_that_do_not_fit_a_task(
    study: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, said: str
) -> None:
    file = changed(study, old, new)
    command = ["study", str(file), "--out", str(file.parent / "out"), "--set", f"DATA={file.parent}"]
    assert cli.main(command) == 2
    assert said in capsys.readouterr().err
    assert not (file.parent / "out" / "plan.json").exists()


def test_the_command_line(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for more, said in (
        (["--set", "DATA"], "--set is 'DATA'; expected NAME=PATH"),
        (["--plan", "--amend"], "give one of the two"),
        (["--amend", "--set", f"DATA={study.parent}"], "no study to amend"),
    ):
        assert cli.main(["study", str(study), "--out", str(study.parent / "out"), *more]) == 2
        assert said in capsys.readouterr().err
    assert cli.main(["study", "--help"]) == 0
    assert "grid = { alpha = [0.5, 1, 2] }" in capsys.readouterr().out


def test_ways() -> None:
    """Labels, grids and controls of decoders, drawn and steered."""
    assert Way("cad").with_options({"alpha": 2}).decoder == "cad:alpha=2"
    assert (
        Way("dola:beta=0").with_options({"layers": [0, 1], "norm": True}).decoder == "dola:beta=0,layers=0+1,norm=true"
    )
    drawn = Way("ritual", sample=True)
    assert drawn.label == "ritual, sampled at 1"
    assert [one.label for one in drawn.controls()] == [
        "greedy",
        "greedy, sampled at 1",
        "greedy, sampled at 0.25",
        "apc:beta=0.1, sampled at 1",
    ]
    steered = Way("dola", steer="/far/away/v.safetensors:2")
    assert (steered.label, steered.method) == ("dola, steer v.safetensors:2", "DoLa + steering")
    assert [one.label for one in steered.controls()][-2:] == ["dola", "steer v.safetensors:2"]
    with pytest.raises(ArgumentError, match="a grid is of one decoder"):
        Way("ritual+vcd").with_options({"alpha": 1})
    assert json.dumps(dict(Way(options=(("method", "entropy"),)).options))
    assert not Way("greedy", sample=True).spec.parts
