"""POPE, against the rules of the released scripts written out, and the files of the official sampler."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest

import truthkit as tk
from tests.each import each
from truthkit.evaluation.tasks.pope import scorer as pope
from truthkit.evaluation.tasks.pope.sampler import co_occurrence, object_counts, sample_questions
from truthkit.evaluation.tasks.pope.scorer import Question


def write(path: Path, *records: object) -> Path:
    path.write_text("\n".join(json.dumps(record) for record in records) + "\n")
    return path


def questions(labels: str, images: int = 2) -> list[Question]:
    """One question per letter, y or n."""
    names = {"y": "yes", "n": "no"}
    return [Question(str(i), f"{i % images}.jpg", f"Is there a {i}?", names[x]) for i, x in enumerate(labels, 1)]


# What each script makes of an answer; vcd for label yes, then for label no.
ANSWERS = [
    ("Yes", "yes", "yes", "yes", "yes", "yes"),
    ("No", "no", "no", "no", "no", "no"),
    ("", "yes", "yes", "no", "yes", None),
    (" no ", "no", "no", "no", "no", "no"),
    ("No\nThere are two cats.", "yes", "yes", "no", "no", None),
    ("Yes.\nNo", "yes", "yes", "yes", "no", None),
    ('"No"', "yes", "yes", "no", "no", None),
    ("nothing", "yes", "yes", "no", "no", None),
    ("yes and no", "no", "no", "yes", "no", None),
    ("No, there is none.", "no", "no", "no", "no", None),
    ("It isn't there", "yes", "no", "no", "yes", None),
    ("Yes. There is no doubt.", "yes", "no", "yes", "no", None),
    ("NO", "yes", "no", "no", "no", "no"),
    ("There is not, sir", "no", "no", "no", "no", None),
    ("I know it", "yes", "yes", "no", "no", None),
]


@each(("answer", "official", "opera", "vcd_yes", "vcd_no", "strict"), ANSWERS)
def test_parsers(answer: str, official: str, opera: str, vcd_yes: str, vcd_no: str, strict: str | None) -> None:
    assert pope.parse(answer, "yes", parser="official") == official
    assert pope.parse(answer, "no", parser="opera") == opera
    assert pope.parse(answer, "yes", parser="vcd") == vcd_yes
    assert pope.parse(answer, "no", parser="vcd") == vcd_no
    assert pope.parse(answer, "no", parser="strict") == strict


def test_unknown_parser() -> None:
    with pytest.raises(tk.ArgumentError, match="parser is 'regex'; expected one of official, opera, vcd, strict"):
        pope.parse("yes", "yes", parser="regex")


@each("parser", ["official", "opera", "vcd"])
def test_metrics_by_counting(parser: str) -> None:
    labels = "ynynynynnny"
    answers = [ANSWERS[(5 * i) % len(ANSWERS)][0] for i in range(len(labels))]
    asked = questions(labels)
    guesses = [pope.parse(a, q.label, parser=parser) for a, q in zip(answers, asked, strict=True)]
    tp = sum(g == "yes" and q.label == "yes" for g, q in zip(guesses, asked, strict=True))
    fp = sum(g == "yes" and q.label == "no" for g, q in zip(guesses, asked, strict=True))
    fn = sum(g == "no" and q.label == "yes" for g, q in zip(guesses, asked, strict=True))
    precision, recall = tp / (tp + fp), tp / (tp + fn)
    assert pope.score(asked, answers, parser=parser).metrics == pytest.approx(
        {
            "accuracy": sum(g == q.label for g, q in zip(guesses, asked, strict=True)) / len(asked),
            "precision": precision,
            "recall": recall,
            "f1": 2 * precision * recall / (precision + recall),
            "yes_ratio": guesses.count("yes") / len(asked),
        },
        abs=1e-15,
    )


def test_strict_is_that_of_lmms_eval() -> None:
    """What is neither yes nor no is wrong, no "yes", and no false negative."""
    found = pope.score(questions("yyynn"), ["yes", "maybe", "no", "maybe", "No"], parser="strict")
    assert found.metrics == {"accuracy": 0.4, "precision": 1, "recall": 0.5, "f1": 2 / 3, "yes_ratio": 0.2}
    assert found.config["unparsed"] == 2


@each("parser", pope.PARSERS)
def test_never_divides_by_zero(parser: str) -> None:
    for labels, answer in product(("yy", "nn"), ("yes", "no", "?")):
        found = pope.score(questions(labels), [answer] * 2, parser=parser)
        assert all(0 <= value <= 1 for value in found.metrics.values()), (labels, answer)
        assert all(0 <= low <= high <= 1 for low, high in found.intervals(resamples=10).values()), (labels, answer)


def test_an_interval_is_never_without_width_for_a_sure_thing() -> None:
    found = pope.score(questions("ynynyn", images=6), ["yes", "no"] * 3).intervals(resamples=100)
    assert found["accuracy"].high == 1
    assert found["accuracy"].low == pytest.approx(6 / (6 + 1.959964**2))


def test_reads_the_official_files(tmp_path: Path) -> None:
    """Answers without ids, in order, as AoiDragon/POPE's evaluate.py takes them; line breaks stay in their answer."""
    data = write(
        tmp_path / "coco_pope_popular.json",
        {"question_id": 1, "image": "a.jpg", "text": "Is there a dog in the image?", "label": "yes"},
        {"question_id": 2, "image": "a.jpg", "text": "Is there a cat in the image?", "label": "no"},
    )
    answers = write(
        tmp_path / "answers.json",
        {"question": "is there a dog in the image?", "answer": "Yes.\n\nThere is a dog."},
        {"question": "Is there a cat in the image? Please answer this question with one word.", "answer": "No"},
    )
    asked = pope.read_questions(data)
    assert asked[1] == Question("2", "a.jpg", "Is there a cat in the image?", "no", "popular", f"{data.name}, line 2")
    assert pope.score(asked, pope.match(asked, pope.read_answers(answers))).metrics["accuracy"] == 1


def test_finds_answers_by_id_in_any_order(tmp_path: Path) -> None:
    lines = [{"question_id": i, "text": f"{i}"} for i in (3, 1, 2)]
    answers = pope.read_answers(write(tmp_path / "a.jsonl", *lines))
    assert pope.match(questions("ynn"), answers) == ["1", "2", "3"]
    as_array = tmp_path / "a.json"
    as_array.write_text(json.dumps(lines))
    assert pope.match(questions("ynn"), pope.read_answers(as_array)) == ["1", "2", "3"]


def test_answers_without_ids_are_taken_in_order_within_their_category(tmp_path: Path) -> None:
    asked = [
        Question(str(i), "a.jpg", f"Is there a {i}?", "yes", name) for name in ("random", "popular") for i in (1, 2)
    ]
    for name in ("popular", "random"):
        write(tmp_path / f"x_{name}.jsonl", {"answer": f"{name} 1"}, {"answer": f"{name} 2"})
    expected = ["random 1", "random 2", "popular 1", "popular 2"]
    assert pope.match(asked, pope.read_answers(tmp_path)) == expected
    write(tmp_path / "x_random.jsonl", *[{"answer": "a"}] * 3)
    write(tmp_path / "x_popular.jsonl", {"answer": "a"})
    with pytest.raises(tk.ArgumentError, match="no answer of category 'popular' is left"):
        pope.match(asked, pope.read_answers(tmp_path))


def test_questions_are_no_answers(tmp_path: Path) -> None:
    lines = [{"question_id": i, "text": f"Is there a {i}?", "label": "yes"} for i in (1, 2)]
    with pytest.raises(tk.ArgumentError, match="line 1 on, is the question itself"):
        pope.match(questions("yn"), pope.read_answers(write(tmp_path / "q.jsonl", *lines)))


@each(
    ("lines", "message"),
    [
        ([{"question_id": 1, "answer": "a"}], r"1 of 2 questions have no answer; the first is question_id 2"),
        ([{"question_id": i, "answer": "a"} for i in (1, 2, 2)], "line 3: question_id 2 was answered at .* line 2"),
        ([{"question_id": i, "answer": "a"} for i in (1, 7)], "line 2: question_id 7 is not among the 2"),
        ([{"answer": "a"}], "1 answers for 2 questions, and no ids"),
        ([{"answer": "a", "question": "Is there a 1?"}, {"answer": "a", "question": "why?"}], "line 2: answers 'why"),
        ([{"question_id": 1, "answer": ["a"]}], r"line 1: 'answer' is \['a'\]; expected text"),
        (
            [{"question_id": 1, "reply": "a"}],
            "line 1: no 'answer' or 'text' or 'output' or 'prediction' or 'response'; its fields are question_id, r",
        ),
        (["yes"], "line 1: expected a JSON object, found 'yes'"),
        ([], "has no records"),
    ],
)
def test_wrong_answers_name_the_line(tmp_path: Path, lines: list[object], message: str) -> None:
    with pytest.raises(tk.ArgumentError, match=message):
        pope.match(questions("yn"), pope.read_answers(write(tmp_path / "a.jsonl", *lines)))


def test_repeated_ids_are_taken_in_order_and_checked(tmp_path: Path) -> None:
    asked = [Question("1", "a", "Is it?", "yes", place="q, line 1"), Question("1", "b", "Is it?", "no")]
    lines = [{"question_id": 1, "text": "yes"}, {"question_id": 1, "text": "no"}]
    assert pope.match(asked, pope.read_answers(write(tmp_path / "a.jsonl", *lines))) == ["yes", "no"]
    wrong = write(tmp_path / "b.jsonl", {"question_id": 2, "text": "yes"}, lines[1])
    with pytest.raises(tk.ArgumentError, match="line 1: question_id is 2, but q, line 1 has 1"):
        pope.match(asked, pope.read_answers(wrong))


@each(
    ("text", "message"),
    [
        (
            '{"question_id": 1, "image": "a", "text": "b", "label": "maybe"}',
            "line 1: label is 'maybe'; expected 'yes' or",
        ),
        ('{"image": "a", "text": "b", "label": "no"}', "line 1: no 'question_id'"),
        ('{"question_id": 1, "text": "b", "label": "no"}', "line 1: no 'image' name"),
        ('\n{"question_id": 1,\n "image": 2,}', "line 2: not JSON"),
        ("[1, 2", "line 1: not JSON"),
    ],
)
def test_wrong_questions_name_the_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "q.json"
    path.write_text(text)
    with pytest.raises(tk.ArgumentError, match=message):
        pope.read_questions(path)


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(tk.NotAvailableError, match=r"none\.json cannot be read: No such file"):
        pope.read_questions(tmp_path / "none.json")
    with pytest.raises(tk.ArgumentError, match="no POPE questions"):
        pope.read_questions(tmp_path)
    with pytest.raises(tk.ArgumentError, match="no answers"):
        pope.read_answers(tmp_path)
    (tmp_path / "x.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(tk.ArgumentError, match="not UTF-8"):
        pope.read_answers(tmp_path / "x.json")


def test_reads_the_form_of_the_hub(tmp_path: Path) -> None:
    record = {"id": "0", "question_id": "1", "question": "Is it?", "answer": "yes", "image_source": "COCO_1"}
    path = write(tmp_path / "hub.jsonl", {**record, "category": "adversarial", "image": {"bytes": None}})
    assert pope.read_questions(path) == [Question("1", "COCO_1", "Is it?", "yes", "adversarial", "hub.jsonl, line 1")]


@pytest.mark.parametrize("source", ["coco", "aokvqa", "gqa"])
def test_real_files(shared_data: Path, tmp_path: Path, source: str) -> None:
    folder = shared_data / "data/pope" / source
    asked = pope.read_questions(folder)
    assert len(asked) == 9000
    assert {question.category for question in asked} == set(pope.STRATEGIES)
    for name in pope.STRATEGIES:
        lines = [{"question_id": q.id, "text": q.label} for q in asked if q.category == name]
        write(tmp_path / f"answers_{name}.jsonl", *lines[::-1])
    found = pope.score(asked, pope.match(asked, pope.read_answers(tmp_path)), parser="strict")
    assert found.metrics["accuracy"] == 1
    parts = pope.by_category(found)
    assert list(parts) == list(pope.STRATEGIES)
    assert [len(part.items) for part in parts.values()] == [3000, 3000, 3000]


def test_sampler_repeats_the_official_one(shared_data: Path) -> None:
    """The files `mini_pope_*` were made with AoiDragon/POPE's script, which slips once: "in the imange"."""
    folder = shared_data / "data/coco256"
    annotations = json.loads((folder / "coco256_objects.json").read_text())
    images = {Path(entry["file"]).name: entry["instance_objects"] for entry in annotations.values()}
    found = sample_questions(images, seed=0)
    for name in pope.STRATEGIES:
        official = pope.read_questions(folder / f"mini_pope_{name}.json")
        assert [(q.id, q.image, q.text, q.label) for q in found[name]] == [
            (q.id, q.image, q.text.replace("imange", "image"), q.label) for q in official
        ]
    used = {image: objects for image, objects in images.items() if len(objects) >= 3}
    assert object_counts(used) == json.loads((folder / "mini_ground_truth_objects.json").read_text())
    assert co_occurrence(used) == json.loads((folder / "mini_co_occur.json").read_text())


def toy_images(count: int = 30) -> dict[str, list[str]]:
    draw = np.random.default_rng(5)
    names = np.array(["person", "apple", "dog", "car", "cat", "bus", "cup", "tv", "bed", "owl"])
    return {
        f"{i}.jpg": names[
            draw.choice(10, size=draw.integers(1, 6), replace=False, p=np.arange(10, 0, -1) / 55)
        ].tolist()
        for i in range(count)
    }


def test_sampled_questions_are_right_and_balanced() -> None:
    images = toy_images()
    found = sample_questions(images, seed=1, image_count=12)
    assert found == sample_questions(images, seed=1, image_count=12)
    assert found != sample_questions(images, seed=2, image_count=12)
    for asked in found.values():
        assert [q.label for q in asked] == ["yes", "no"] * 36
        assert len({(q.image, q.text) for q in asked}) == len(asked)
        for question in asked:
            name = question.text.split()[3]
            assert question.text == f"Is there a{'n' if name[0] in 'ao' else ''} {name} in the image?"
            assert (name in images[question.image]) == (question.label == "yes")


def test_popular_objects_come_first() -> None:
    images = {"1": ["a", "b", "c"], "2": ["a", "b", "d"], "3": ["a", "x", "y"], "4": ["p", "q", "r"]}
    found = sample_questions(images, strategies=["popular"])["popular"]
    assert [q.text.split()[3] for q in found if q.image == "4" and q.label == "no"] == ["a", "b", "c"]


@each(
    ("options", "message"),
    [
        ({"strategies": ["easy"]}, "strategies has 'easy'"),
        ({"image_count": 99}, "expected at least 99"),
        ({"objects_per_image": 9}, "0 images have 9 objects"),
    ],
)
def test_sampler_refuses(options: dict, message: str) -> None:
    with pytest.raises(tk.ArgumentError, match=message):
        sample_questions(toy_images(), **options)


def test_sampler_refuses_images_with_nearly_all_objects() -> None:
    with pytest.raises(tk.ArgumentError, match="too few are absent"):
        sample_questions({"1": ["a", "b", "c"], "2": ["a", "b", "d"]})
