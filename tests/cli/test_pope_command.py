"""`truthkit pope`: questions from one's own annotations, in files that the rest reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from truthkit import cli
from truthkit.cli import pope as command
from truthkit.evaluation.tasks.pope import scorer as pope
from truthkit.evaluation.tasks.pope.sampler import TEMPLATE, read_objects

OBJECTS = {
    "a.jpg": ["person", "cup", "oven"],
    "b.jpg": ["dog", "person", "car", "dog"],
    "c.jpg": ["cat", "bed", "apple"],
    "d.jpg": ["cat"],
}


def as_lines() -> str:
    return "".join(json.dumps({"image": image, "objects": names}) + "\n" for image, names in OBJECTS.items())


def as_coco() -> str:
    names = sorted({name for objects in OBJECTS.values() for name in objects})
    return json.dumps(
        {
            "images": [{"id": number, "file_name": image} for number, image in enumerate(OBJECTS)],
            "categories": [{"id": number, "name": name} for number, name in enumerate(names)],
            "annotations": [
                {"image_id": number, "category_id": names.index(name)}
                for number, objects in enumerate(OBJECTS.values())
                for name in objects
            ],
        }
    )


FORMS = {
    "lines": as_lines(),
    "one line": as_lines().splitlines()[0],
    "array": json.dumps([json.loads(line) for line in as_lines().splitlines()]),
    "object": json.dumps(OBJECTS),
    "coco": as_coco(),
}


def test_defaults_are_the_samplers() -> None:
    assert (command.STRATEGIES, command.TEMPLATE) == (pope.STRATEGIES, TEMPLATE)


@pytest.mark.parametrize("form", FORMS)
def test_reads_annotations(form: str, tmp_path: Path) -> None:
    (tmp_path / "objects.json").write_text(FORMS[form])
    expected = {image: list(dict.fromkeys(names)) for image, names in OBJECTS.items()}
    found = read_objects(tmp_path / "objects.json")
    assert found == (expected if form != "one line" else {"a.jpg": expected["a.jpg"]})


def test_files_for_eval_and_score(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "objects.jsonl").write_text(as_lines())
    argv = ["pope", str(tmp_path / "objects.jsonl"), "--out", str(tmp_path / "questions"), "--name", "mine"]
    assert cli.main(argv) == 0
    assert "mine_random.json: 18 questions on 3 images" in capsys.readouterr().out
    questions = pope.read_questions(tmp_path / "questions")
    assert [q.category for q in questions[::18]] == list(pope.STRATEGIES)
    for question in questions:
        assert any(f" {name} in" in question.text for name in OBJECTS[question.image]) == (question.label == "yes")
    assert cli.main([*argv, "--seed", "1"]) == 2
    assert "mine_random.json is there already" in capsys.readouterr().err


def test_options(tmp_path: Path) -> None:
    (tmp_path / "objects.jsonl").write_text(as_lines())
    argv = ["pope", str(tmp_path / "objects.jsonl"), "--out", str(tmp_path), "--strategies", "random"]
    assert cli.main([*argv, "--images", "2", "--objects-per-image", "2", "--template", "{object}?"]) == 0
    questions = pope.read_questions(tmp_path / "pope_random.json")
    assert len(questions) == 8
    assert all(question.text in [f"{name}?" for names in OBJECTS.values() for name in names] for question in questions)


@pytest.mark.parametrize(
    ("content", "options", "code", "message"),
    [
        (None, [], 1, "objects.json': there is no such file"),
        ("", [], 2, "has no records"),
        ('{"image": "a"}', [], 2, "line 1: no 'objects'"),
        ('{"image": "a", "objects": "dog"}', [], 2, "line 1: its objects are 'dog'; expected a list of names"),
        (
            '{"image": "a", "objects": ["dog"]}\n{"image": "a", "objects": []}',
            [],
            2,
            "line 2: image 'a' is there twice",
        ),
        ('{"a": [1]}', [], 2, "image 'a': its objects are [1]"),
        ('{"a": ["x"]}\nx', [], 2, "line 2: not JSON"),
        ('{"images": [], "annotations": [{}], "categories": []}', [], 2, "not as COCO's instances: there is no"),
        ('{"a": []}', [], 2, "0 images have 3 objects or more"),
        (as_lines(), ["--images", "0"], 2, "--images is 0"),
        (as_lines(), ["--images", "9"], 2, "expected at least 9"),
        (as_lines(), ["--strategies", "easy"], 2, "strategies has 'easy'"),
        (as_lines(), ["--template", "Is it there?"], 2, "expected {object} in it"),
        (as_lines(), ["--template", "Is {a} {object} there?"], 2, "expected {article} and {object} only"),
    ],
)
def test_bad_input(
    content: str | None,
    options: list[str],
    code: int,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[Any],
) -> None:
    if content is not None:
        (tmp_path / "objects.json").write_text(content)
    assert cli.main(["pope", str(tmp_path / "objects.json"), "--out", str(tmp_path / "out"), *options]) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
