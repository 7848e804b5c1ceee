"""CHAIR, against reference values, and against nltk's own pipeline without any of our short cuts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import truthkit as tk
from tests.each import each
from tests.evaluation.tasks import chair_oracle
from truthkit.evaluation.tasks.chair import scorer as chair
from truthkit.evaluation.tasks.chair.lemmas import lemmatizer
from truthkit.evaluation.tasks.chair.singular import singularize

# Of ../shared/data/README.md.
REFERENCE = {
    ("nltk", "opera_llava-1.5.greedy"): (0.448, 0.127013, 0.799739),
    ("nltk", "opera_instructblip.greedy"): (0.588, 0.236783, 0.690874),
    ("pattern", "opera_llava-1.5.greedy"): (0.450, 0.127842, 0.797900),
    ("pattern", "opera_instructblip.greedy"): (0.572, 0.227106, 0.688630),
}


@pytest.fixture(scope="module")
def data(shared_data: Path) -> Path:
    return shared_data / "data"


@pytest.fixture(scope="module", params=chair_oracle.LEMMATIZERS)
def vocabulary(request: pytest.FixtureRequest, data: Path) -> chair.Vocabulary:
    return chair.Vocabulary(data / "chair/synonyms.txt", request.param, nltk_data=[data / "nltk_data"])


@pytest.fixture(scope="module")
def truth(vocabulary: chair.Vocabulary, data: Path) -> dict[int, set[str]]:
    return chair.read_ground_truth(data / "chair", vocabulary)


@pytest.fixture(autouse=True, scope="module")
def nltk() -> Any:
    return pytest.importorskip("nltk", reason="the extra eval is not installed")


@pytest.fixture
def oracle_data(nltk: Any, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nltk.data, "path", [*nltk.data.path, str(data / "nltk_data")])


@each("name", ["opera_llava-1.5.greedy", "opera_instructblip.greedy"])
def test_reference_values(name: str, vocabulary: chair.Vocabulary, truth: dict[int, set[str]], data: Path) -> None:
    found = chair.score(chair.read_captions(data / f"chair/captions/{name}.jsonl"), truth, vocabulary)
    rounded = tuple(round(found.metrics[metric], 6) for metric in chair.METRICS)
    assert rounded == REFERENCE[vocabulary.lemmatizer, name]
    for metric, (low, high) in found.intervals(resamples=300).items():
        assert low < found.metrics[metric] < high


@pytest.mark.usefixtures("oracle_data")
def test_mentions_are_those_of_the_plain_way(vocabulary: chair.Vocabulary, data: Path) -> None:
    """Oracle: nltk's `word_tokenize`, `pos_tag` and `WordNetLemmatizer` on whole captions."""
    synonyms = chair_oracle.read_synonyms(data / "chair/synonyms.txt")
    texts = [
        "A baby elephant, 2 passenger trains and a wine glass; the seat of the toilet. He can't seat her!",
        'Teddy bears\' picnic: "hot dogs" -- cannot be beat... U.S. buses e.g. on Mt. Hood, 3.5 miles, gonna skis',
        "men women children people geese oxen knives sheep mice wolves collies ties glasses sports balls cups",
        "Motor bike. Stove top oven! cheesecake? an orange orange well-lit tv's dogs' man-made   \n\n laptops",
        "",
    ]
    for file in sorted((data / "chair/captions").glob("*.jsonl")):
        texts += [json.loads(line)["caption"] for line in file.read_text().splitlines()[::50]]
    for text in texts:
        found = [name for _, name in vocabulary.objects(text)]
        assert found == chair_oracle.objects(text, synonyms, vocabulary.lemmatizer), text


@pytest.mark.usefixtures("oracle_data")
def test_lemmas_that_matter_are_nltks(data: Path) -> None:
    """All captions of COCO that are here, with every noun of them as a word that matters."""
    lines = (data / "coco_caps_boxes_80/caps_boxes_coco2014_val_80.jsonl").read_text().splitlines()
    captions = [caption for line in lines for caption in json.loads(line)["captions"]]
    expected = [chair_oracle.lemmas(caption, "nltk") for caption in captions]
    words = {lemma for lemmas in expected for lemma in lemmas}
    lemmatize = lemmatizer("nltk", words, nltk_data=[data / "nltk_data"])
    assert [lemmatize(caption) for caption in captions] == expected


def test_ground_truth_from_coco_files(vocabulary: chair.Vocabulary, truth: dict, data: Path, tmp_path: Path) -> None:
    """Oracle: the prepared ground truth, for the 80 images whose captions and boxes are here."""
    lines = (data / "coco_caps_boxes_80/caps_boxes_coco2014_val_80.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    numbers = {name: number for number, name in enumerate(sorted({n for _, n in vocabulary.names.items()}), 1)}
    instances = {
        "images": [{"id": int(entry["id"])} for entry in entries],
        "categories": [{"id": number, "name": name} for name, number in numbers.items()],
        "annotations": [
            {"image_id": int(entry["id"]), "category_id": numbers[box["category"]]}
            for entry in entries
            for box in entry["instances"]
        ],
    }
    captions = [{"image_id": int(e["id"]), "caption": caption} for e in entries for caption in e["captions"]]
    (tmp_path / "instances_val2014.json").write_text(json.dumps(instances))
    (tmp_path / "captions_val2014.json").write_text(json.dumps({"annotations": captions}))
    found = chair.read_ground_truth(tmp_path, vocabulary)
    assert found == {int(entry["id"]): truth[int(entry["id"])] for entry in entries}
    prepared = {str(image): sorted(objects) for image, objects in found.items()}
    (tmp_path / f"chair_gt_{vocabulary.lemmatizer}.json").write_text(json.dumps(prepared))
    assert chair.read_ground_truth(tmp_path, vocabulary) == found


@pytest.fixture
def toy(data: Path, tmp_path: Path) -> chair.Vocabulary:
    path = tmp_path / "synonyms.txt"
    path.write_text("dog, puppy\ncat,  kitten\nperson, man, woman\nchair, seat\ntoilet\n\ntie, bow tie, bow\n")
    return chair.Vocabulary(path, "pattern", nltk_data=[data / "nltk_data"])


def test_scores_by_hand(toy: chair.Vocabulary, tmp_path: Path) -> None:
    path = tmp_path / "captions.json"
    path.write_text(
        json.dumps(
            [
                {"image_id": 1, "caption": "Two dogs and a puppy, a cat; a man's bow tie."},  # dog dog cat person tie
                {"image_id": 2, "caption": "A toilet with its seat up, and kittens."},  # toilet; kitten never matches
                {"image": "COCO_val2014_000000000003.jpg", "answer": "Nothing."},
            ]
        )
    )
    captions = chair.read_captions(path)
    assert [caption.image for caption in captions] == [1, 2, 3]
    found = chair.score(captions, {1: {"dog", "person"}, 2: {"toilet", "cat"}, 3: set()}, toy)
    assert found.metrics == pytest.approx({"chair_s": 1 / 3, "chair_i": 2 / 6, "recall": 3 / 4})
    assert found.items[0]["hallucinated"] == ["cat", "tie"]


def test_no_object_at_all(toy: chair.Vocabulary) -> None:
    found = chair.score([chair.Caption(1, "Nothing here"), chair.Caption(2, "")], {1: set(), 2: set()}, toy)
    assert found.metrics == {"chair_s": 0, "chair_i": 0, "recall": 0}
    assert found.intervals(resamples=10)["chair_s"].low == 0


def test_unknown_image(toy: chair.Vocabulary) -> None:
    with pytest.raises(tk.ArgumentError, match="line 4: image 9 is not among the 1 with ground truth"):
        chair.score([chair.Caption(9, "a dog", "x.jsonl, line 4")], {1: set()}, toy)


@each(
    ("name", "number"),
    [(42, 42), ("42", 42), ("000000000042.jpg", 42), ("COCO_val2014_000000000042.jpg", 42), ("a/b_7.png", 7)],
)
def test_image_numbers(name: str | int, number: int) -> None:
    assert chair.image_number(name) == number


@each("name", [None, "dog.jpg", "", True, 4.2, "7th"])
def test_no_image_numbers(name: object) -> None:
    with pytest.raises(tk.ArgumentError, match=r"line 3: .* is no image number"):
        chair.image_number(name, "line 3")


@pytest.mark.parametrize(
    ("files", "error", "message"),
    [
        ({}, tk.NotAvailableError, "no ground truth: expected chair_gt_pattern.json, or COCO's"),
        ({"chair_gt_pattern.json": [1]}, tk.ArgumentError, "from image numbers to lists"),
        ({"chair_gt_pattern.json": {"dog": []}}, tk.ArgumentError, "'dog' is no image number"),
        ({"instances_a.json": {}, "captions_a.json": {}}, tk.ArgumentError, "no COCO file: it has no 'images'"),
        (
            {"instances_a.json": {"images": [], "annotations": [], "categories": [{"id": 1, "name": "yeti"}]}}
            | {"captions_a.json": {"annotations": []}},
            tk.ArgumentError,
            "category 'yeti' is not among the synonyms",
        ),
    ],
)
def test_wrong_ground_truth(
    toy: chair.Vocabulary, tmp_path: Path, files: dict, error: type[Exception], message: str
) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(error, match=message):
        chair.read_ground_truth(tmp_path, toy)


def test_without_nltks_data(nltk: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nltk.data, "path", [])
    with pytest.raises(tk.NotAvailableError, match=r"nltk's data .*python -m nltk.downloader punkt_tab"):
        lemmatizer("nltk", ["dog"], nltk_data=[tmp_path])
    assert nltk.data.path == []


def test_unknown_lemmatizer() -> None:
    with pytest.raises(tk.ArgumentError, match="lemmatizer is 'spacy'; expected one of nltk, pattern"):
        lemmatizer("spacy", ["dog"])


def test_singularize() -> None:
    singular = {  # what pattern.en 3.6 gives
        **{"dogs": "dog", "women": "woman", "people": "person", "geese": "goose", "benches": "bench"},
        **{"glasses": "glass", "glass": "glas", "bus": "bu", "buses": "bus", "knives": "knife"},
        **{"ties": "ty", "collies": "collies", "puppies": "puppy", "skis": "ski", "scissors": "scissors"},
        **{"series": "series", "loaves": "loaf", "wolves": "wolf", "mice": "mouse", "potatoes": "potato"},
        **{"movies": "movie", "horses": "horse", "pasta": "pastum", "safari": "safarus", "olives": "olife"},
        **{"hour": "hmy", "vases": "vase", "boxes": "box", "dogs'": "dog's", "sheep": "sheep"},
    }
    assert {word: singularize(word) for word in singular} == singular
