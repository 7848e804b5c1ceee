"""AMBER, against a plain reading of the authors' script, on any responses."""

from __future__ import annotations

import json
import random
import sys
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import truthkit as tk
from tests.evaluation.tasks import amber_oracle
from truthkit import cli
from truthkit.decoding.spec import parse_spec
from truthkit.evaluation.report.rescore import rescore
from truthkit.evaluation.running.asking import Asking
from truthkit.evaluation.running.runs import run
from truthkit.evaluation.tasks.amber import AMBER, scorer
from truthkit.evaluation.tasks.amber.nouns import Words
from truthkit.evaluation.tasks.amber.task import score_files
from truthkit.scenes.questions import held_out
from truthkit.scenes.render import render

TYPES = {
    "discriminative-hallucination": ("no",),
    "discriminative-attribute-state": ("yes", "no"),
    "discriminative-attribute-number": ("yes", "no"),
    "discriminative-attribute-action": ("yes", "no"),
    "discriminative-relation": ("yes",),
    "relation": ("no",),
}
ASSOCIATION = {
    "dog": ["puppy", "animal"],
    "cat": ["kitten", "animal"],
    "ball": ["toy"],
    "sky": [],
    "grass": ["ground"],
    "bird": ["wing"],
}
OBJECTS = list(ASSOCIATION)
SAID = ("Yes", "No", "yes", "no", "NO", "Yes.", "No, there is none.", "", "Yes\n", " No", "maybe", "not", "Noo")


def benchmark(folder: Path, count: int = 60, described: int = 8, seed: int = 0) -> list[dict[str, Any]]:
    """A small AMBER: its folder, and its annotations."""
    rng = random.Random(seed)
    annotations: list[dict[str, Any]] = []
    for number in range(1, described + 1):
        objects = rng.sample(OBJECTS, 5)
        annotations.append({"id": number, "type": "generative", "truth": objects[:3], "hallu": objects[3:]})
    for number in range(described + 1, count + 1):
        kind = rng.choice(list(TYPES))
        annotations.append({"id": number, "type": kind, "truth": rng.choice(TYPES[kind])})
    queries = [{"id": one["id"], "image": f"AMBER_{one['id'] % 4}.png", "query": asked(one)} for one in annotations]
    (folder / "query").mkdir(parents=True)
    for name, value in (("annotations", annotations), ("relation", ASSOCIATION), ("query/query_all", queries)):
        (folder / f"{name}.json").write_text(json.dumps(value))
    (folder / "safe_words.txt").write_text("animal\nlight")
    return annotations


def asked(annotation: dict[str, Any]) -> str:
    described = annotation["type"] == "generative"
    return "Describe the image." if described else f"Is there a {OBJECTS[annotation['id'] % 6]} in the image?"


def file_of(folder: Path, responses: list[dict[str, Any]]) -> Path:
    path = folder / "responses.json"
    path.write_text(json.dumps(responses))
    return path


def drawn(rng: random.Random, ids: list[int]) -> list[dict[str, Any]]:
    """Responses with some missing, some twice, in any order, mostly the two words that count."""
    kept = rng.sample(ids, rng.randint(1, len(ids)))
    kept += rng.choices(kept, k=rng.choice((0, 0, 3)))
    share = rng.choice((0.0, 0.5, 0.9, 1.0))
    words = [rng.choice(("Yes", "No")) if rng.random() < share else rng.choice(SAID) for _ in kept]
    return [{"id": number, "response": word} for number, word in zip(kept, words, strict=True)]


def same(found: dict[str, float], expected: dict[str, float]) -> None:
    """To the last digit, what was asked at all."""
    assert {name: expected[name] for name in found} == found


def test_any_responses_score_as_the_script_scores_them(tmp_path: Path) -> None:
    annotations = benchmark(tmp_path, count=400)
    rng = random.Random(1)
    ids = [one["id"] for one in annotations if one["type"] != "generative"]
    for _ in range(100):
        responses = drawn(rng, ids if rng.random() < 0.8 else ids[:6])
        found = score_files(file_of(tmp_path, responses), tmp_path).metrics
        same(found, amber_oracle.discriminative(annotations, responses))
        assert "f1" in found
    everything = [{"id": number, "response": rng.choice(("Yes", "No"))} for number in ids]
    found = score_files(file_of(tmp_path, everything), tmp_path).metrics
    assert found == amber_oracle.discriminative(annotations, everything)


def test_real_annotations(shared_data: Path, tmp_path: Path) -> None:
    """All 14,216 questions, a few times, with the share of right answers varied."""
    folder = shared_data / "data/amber"
    annotations = json.loads((folder / "annotations.json").read_text())
    known = scorer.read_annotations(folder)
    assert len(known) == 15_220
    assert known[1005].query == "Is the sky sunny in this image?"
    assert (known[15_220].kind, known[15_220].image) == ("relation", "AMBER_1004.jpg")
    rng = random.Random(2)
    for skill in (0.3, 0.72):
        responses = []
        for one in annotations[1004:]:
            right = rng.random() < skill
            word = (one["truth"] if right else {"yes": "no", "no": "yes"}[one["truth"]]).capitalize()
            responses.append({"id": one["id"], "response": rng.choice((word, word, word, word.lower()))})
        score = score_files(file_of(tmp_path, rng.sample(responses, len(responses))), folder)
        assert score.metrics == amber_oracle.discriminative(annotations, responses)
        low, high = score.intervals(resamples=200)["f1"]
        assert low <= score.metrics["f1"] <= high


def test_parsers(tmp_path: Path) -> None:
    benchmark(tmp_path, count=30, described=0)
    annotations = scorer.read_annotations(tmp_path)
    one, other = (next(a for a in annotations.values() if a.label == label) for label in ("no", "yes"))
    for parser, right in (("official", 0), ("pope", 1), ("opera", 1), ("vcd", 1), ("strict", 0)):
        assert scorer.score([(one, "No, it is not.")], parser=parser).metrics["accuracy"] == pytest.approx(
            100 * right, abs=0.1
        )
    assert scorer.parse("yes", "yes", parser="strict") == "yes"
    assert scorer.parse("yes", "yes") is None
    assert scorer.score([(other, "It is.")], parser="pope").items[0]["prediction"] == "yes"
    with pytest.raises(tk.ArgumentError, match="parser is 'best'; expected one of official, pope"):
        scorer.parse("yes", "yes", parser="best")


# -- descriptions ------------------------------------------------------------------------------------------------------


@pytest.fixture
def nltk(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    module = pytest.importorskip("nltk", reason="the extra eval is not installed")
    monkeypatch.setattr(module.data, "path", [*module.data.path, str(shared_data / "data/nltk_data")])
    return module


def tagged(nltk: Any, text: str) -> list[str]:
    """Nltk's own pipeline, its tagger loaded once."""
    from nltk.stem import WordNetLemmatizer

    lemmatize = WordNetLemmatizer().lemmatize
    return [lemmatize(word) for word, tag in tagger().tag(nltk.word_tokenize(text)) if tag.startswith("NN")]


@cache
def tagger() -> Any:
    """What `nltk.pos_tag` makes anew for every text."""
    from nltk.tag.perceptron import PerceptronTagger

    return PerceptronTagger()


ALIKE = {frozenset(pair) for pair in (("wing", "sky"), ("kitten", "dog"), ("ball", "bird"), ("toy", "grass"))}


class Pipeline:
    """Stands in for spaCy: some words are alike, and each is like itself."""

    meta = {"version": "0.0"}  # noqa: RUF012

    def __call__(self, word: str) -> Any:
        return SimpleNamespace(word=word, similarity=lambda other: 0.9 if alike(word, other.word) else 0.3)


def alike(one: str, other: str) -> bool:
    return one == other or frozenset((one, other)) in ALIKE


@pytest.mark.parametrize("vectors", ["none", "en_toy"])
def test_descriptions(vectors: str, tmp_path: Path, nltk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    annotations = benchmark(tmp_path, described=30)
    monkeypatch.setitem(sys.modules, "spacy", SimpleNamespace(load=lambda _name: Pipeline()))
    rng = random.Random(3)
    words = [word for first, rest in ASSOCIATION.items() for word in (first, *rest)]
    for _ in range(2):
        texts = [
            f"The {rng.choice(words)} plays with two {rng.choice(words)}s. A {rng.choice(words)}, a Dog and a house "
            f"are on the {rng.choice(words)}; it runs."
            for _ in range(30)
        ]
        responses: list[dict[str, Any]] = [{"id": i, "response": text} for i, text in enumerate(texts, 1)]
        responses += [{"id": 40, "response": "No"}, {"id": 2, "response": ""}]
        score = score_files(file_of(tmp_path, responses), tmp_path, vectors=vectors)
        expected = amber_oracle.generative(
            annotations,
            responses,
            ASSOCIATION,
            ["animal", "light"],
            lambda text: tagged(nltk, text),
            alike if vectors == "en_toy" else lambda _one, _other: False,
        )
        assert {name: score.metrics[name] for name in expected} == expected
        assert score.metrics["amber"] == (100 - expected["chair"] + score.metrics["f1"]) / 2
        assert score.config["near_synonyms"] == {"none": "none, exact words alone", "en_toy": "en_toy 0.0"}[vectors]
        assert rescore(score.items, {"task": "amber", **score.config}).metrics == score.metrics


def test_nouns_are_those_of_nltk(shared_data: Path, nltk: Any) -> None:
    path = shared_data / "data/chair/captions/opera_llava-1.5.greedy.jsonl"
    captions = [json.loads(line)["caption"] for line in path.read_text().splitlines()[:60]]
    words = Words(shared_data / "data/amber", "none")
    assert [words.tagged(caption) for caption in captions] == [tagged(nltk, caption) for caption in captions]
    assert len(words.safe) == 9


def test_real_words(shared_data: Path, nltk: Any, tmp_path: Path) -> None:
    """The published association words, on captions of another benchmark."""
    folder = shared_data / "data/amber"
    annotations = json.loads((folder / "annotations.json").read_text())
    path = shared_data / "data/chair/captions/opera_llava-1.5.greedy.jsonl"
    captions = [json.loads(line)["caption"] for line in path.read_text().splitlines()[:40]]
    responses = [{"id": number, "response": caption} for number, caption in enumerate(captions, 1)]
    score = score_files(file_of(tmp_path, responses), folder, vectors="none")
    association = json.loads((folder / "relation.json").read_text())
    safe = (folder / "safe_words.txt").read_text().split("\n")
    expected = amber_oracle.generative(
        annotations, responses, association, safe, lambda text: tagged(nltk, text), lambda _one, _other: False
    )
    assert score.metrics == expected


def test_the_variant_is_named(tmp_path: Path, nltk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    benchmark(tmp_path)
    answers = file_of(tmp_path, [{"id": 1, "response": "A dog."}])
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.warns(UserWarning, match="without near-synonyms .*, which published numbers have: pip install"):
        score = score_files(answers, tmp_path)
    assert "en_core_web_lg is not installed" in score.config["near_synonyms"]
    assert AMBER.remarks
    assert "exact words alone" in str(AMBER.remarks(score.config))
    with pytest.raises(tk.MissingExtraError, match=r"pip install 'truthkit\[amber\]'"):
        score_files(answers, tmp_path, vectors="en_core_web_lg")


# -- a run -------------------------------------------------------------------------------------------------------------


def test_a_run(tmp_path: Path, nltk: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """All parts at once, gone on with after a cut, scored again from its folder and from a file of its answers."""
    annotations = benchmark(tmp_path, count=24, described=4)
    (tmp_path / "images").mkdir()
    for number, scene in enumerate(held_out(4)):
        render(scene).save(tmp_path / f"images/AMBER_{number}.png")
    model, processor = tk.load("scene-vlm")
    task = AMBER.task(tmp_path, vectors="none")
    assert (len(task.items), task.headline, task.max_new_tokens) == (24, "amber", 512)
    asking = Asking(model, processor, parse_spec("greedy"), {}, max_new_tokens=30)
    whole = run(task, asking, tmp_path / "whole", model_name="scenes", units=AMBER.units)
    run(task, asking, tmp_path / "parts", model_name="scenes")
    records = tmp_path / "parts/records.jsonl"
    records.write_text("\n".join(records.read_text().splitlines()[:9]) + "\n")
    assert run(task, asking, tmp_path / "parts", model_name="scenes")["metrics"] == whole["metrics"]
    assert {"amber", "chair", "f1", "f1_relation"} <= whole["metrics"].keys()
    assert whole["units"]["f1_state"] == "%"
    lines = [json.loads(line) for line in (tmp_path / "whole/items.jsonl").read_text().splitlines()]
    responses = [{"id": line["id"], "response": line["answer"]} for line in lines]
    assert any(len(one["response"].split()) > 4 for one in responses[:4])
    assert all(len(one["response"].split()) < 4 for one in responses[4:])
    expected = amber_oracle.discriminative(annotations, responses)
    assert {name: whole["metrics"][name] for name in expected} == expected
    found = score_files(file_of(tmp_path, responses), tmp_path, vectors="none").metrics
    assert found == pytest.approx(whole["metrics"], nan_ok=True)
    command = ["score", "amber", str(tmp_path / "whole"), "--parser", "pope", "--data", str(tmp_path), "--json"]
    assert cli.main(command) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["config"]["parser"] == "pope"
    assert again["metrics"]["accuracy"] > whole["metrics"]["accuracy"] - 1


def test_parts(tmp_path: Path) -> None:
    annotations = benchmark(tmp_path, count=40)
    (tmp_path / "images").mkdir()
    for number in range(4):
        (tmp_path / f"images/AMBER_{number}.png").write_bytes(b"x")
    for part, kinds in (("existence", {"existence"}), ("attribute", {"state", "number", "action"})):
        task = AMBER.task(tmp_path, part=part, suffix=" Yes or no?")
        wanted = [one["id"] for one in annotations if amber_oracle.kind_of(one) in kinds and one["id"] > 8]
        assert [int(item.id) for item in task.items] == wanted
        assert task.items[0].prompt.endswith(" Yes or no?")
        assert (task.headline, task.max_new_tokens) == ("f1", 16)
        metrics = task.score([0], ["Yes"]).metrics
        assert ("f1_state" in metrics) == (part == "attribute")
        assert "f1" in metrics


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("responses", "message"),
    [
        ([{"id": 61, "response": "Yes"}], "responses.json, record 1: id 61 is not among the 60 annotations"),
        ([{"id": 0, "response": "Yes"}], "id 0 is not among the 60"),
        ([{"id": -3, "response": "Yes"}], "record 1: 'id' is '-3'; expected the number of a query"),
        ([{"response": "Yes"}], "'id' is None; expected the number"),
        ([{"id": 20}], "record 1: no 'answer' or 'text'"),
        ([{"id": 20, "response": None}], "'response' is None; expected text"),
        ([], "has no records"),
        (["Yes"], "expected a JSON object"),
    ],
)
def test_wrong_responses(responses: list[Any], message: str, tmp_path: Path) -> None:
    benchmark(tmp_path)
    with pytest.raises(tk.ArgumentError, match=message):
        score_files(file_of(tmp_path, responses), tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("annotations", {}, "expected a list of annotations"),
        ("annotations", [{"id": 2, "type": "relation", "truth": "no"}], "record 1: id is 2; expected 1"),
        ("annotations", [{"id": 1, "type": "relation", "truth": "perhaps"}], "truth is 'perhaps'; expected 'yes'"),
        ("annotations", [{"id": 1, "type": "generative", "truth": ["dog"]}], "record 1 has no 'hallu'"),
        ("query/query_all", [{"id": "x", "image": "a", "query": "b"}], "query_all.json, record 1: 'id' is"),
    ],
)
def test_wrong_annotations(name: str, value: Any, message: str, tmp_path: Path) -> None:
    benchmark(tmp_path)
    (tmp_path / f"{name}.json").write_text(json.dumps(value))
    with pytest.raises(tk.ArgumentError, match=message):
        scorer.read_annotations(tmp_path)


def test_missing_files(tmp_path: Path, nltk: Any) -> None:
    with pytest.raises(tk.NotAvailableError, match=r"has no annotations\.json; pass the folder"):
        scorer.read_annotations(tmp_path)
    folder = tmp_path / "amber"
    benchmark(folder)
    with pytest.raises(tk.ArgumentError, match="amber asks about images; pass their folder with --images"):
        AMBER.task(folder, part="existence")
    (folder / "images").mkdir()
    with pytest.raises(tk.NotAvailableError, match=r"has no image AMBER_\d.png"):
        AMBER.task(folder, part="existence")
    (folder / "query/query_all.json").unlink()
    with pytest.raises(tk.ArgumentError, match="has no query with id"):
        AMBER.task(folder, part="existence")
    (folder / "relation.json").write_text('{"dog": []}')
    answers = file_of(folder, [{"id": 1, "response": "A dog."}])
    with pytest.raises(tk.ArgumentError, match=r"relation\.json has no entry for"):
        score_files(answers, folder, vectors="none")
    with pytest.raises(tk.ArgumentError, match="no responses to score"):
        scorer.score([])
