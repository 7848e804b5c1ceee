"""CHAIR the plain way: every caption through nltk's whole pipeline, no caches. The oracle of `test_chair.py`.

Run as a script, it measures the time of both on the same captions, one after the other:

    NLTK_DATA=../shared/data/nltk_data python -m tests.evaluation.tasks.chair_oracle ../shared/data/chair nltk
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from truthkit.evaluation.tasks.chair import scorer as chair
from truthkit.evaluation.tasks.chair.singular import singularize

LEMMATIZERS = ("nltk", "pattern")

PAIRS = """motor bike/motor cycle/air plane/traffic light/street light/traffic signal/stop light/fire hydrant/stop sign/
parking meter/suit case/sports ball/baseball bat/baseball glove/tennis racket/wine glass/hot dog/cell phone/
mobile phone/teddy bear/hair drier/potted plant/bow tie/laptop computer/stove top oven/home plate/train track"""


def double_words() -> dict[str, str]:
    pairs = {pair.strip(): pair.strip() for pair in PAIRS.split("/")}
    for animal in "bird cat dog horse sheep cow elephant bear zebra giraffe animal cub".split():  # noqa: SIM905
        pairs[f"baby {animal}"] = pairs[f"adult {animal}"] = animal
    pairs |= {"passenger jet": "jet", "passenger train": "train"}
    return pairs | {"bow tie": "tie", "toilet seat": "toilet", "wine glas": "wine glass"}


def lemmas(caption: str, lemmatizer: str) -> list[str]:
    import nltk
    from nltk.corpus import wordnet
    from nltk.stem import WordNetLemmatizer

    words = nltk.word_tokenize(caption.lower())
    if lemmatizer == "pattern":
        return [singularize.__wrapped__(word) for word in words]
    parts = {"J": wordnet.ADJ, "V": wordnet.VERB, "N": wordnet.NOUN, "R": wordnet.ADV}
    tool = WordNetLemmatizer()
    return [tool.lemmatize(word, pos=parts.get(tag[0], wordnet.NOUN)) for word, tag in nltk.pos_tag(words)]


def objects(caption: str, synonyms: list[list[str]], lemmatizer: str) -> list[str]:
    known = [word for line in synonyms for word in line]
    names = {word: line[0] for line in synonyms for word in line}
    pairs = double_words()
    words = lemmas(caption, lemmatizer)
    merged = []
    i = 0
    while i < len(words):
        pair = " ".join(words[i : i + 2])
        merged.append(pairs.get(pair, words[i]))
        i += 2 if pair in pairs else 1
    if "toilet" in merged and "seat" in merged:
        merged = [word for word in merged if word != "seat"]
    return [names[word] for word in merged if word in set(known)]


def read_synonyms(path: Path) -> list[list[str]]:
    return [line.strip().split(", ") for line in path.read_text().splitlines() if line]


def plain_chair(file: Path, truth: dict[int, set[str]], synonyms: list[list[str]], lemmatizer: str) -> list[float]:
    """CHAIR_s, CHAIR_i and recall."""
    captions = wrong = mentions = hallucinated = there = named = 0
    for line in file.read_text().splitlines():
        record = json.loads(line)
        right = truth[record["image_id"]]
        found = objects(record["caption"], synonyms, lemmatizer)
        bad = [name for name in found if name not in right]
        captions += 1
        wrong += bool(bad)
        mentions += len(found)
        hallucinated += len(bad)
        there += len(right)
        named += len(set(found) & right)
    return [wrong / captions, hallucinated / mentions, named / there]


def main(folder: Path, lemmatizer: str) -> None:
    files = sorted((folder / "captions").glob("*.jsonl"))
    start = time.process_time()
    vocabulary = chair.Vocabulary(folder / "synonyms.txt", lemmatizer)
    truth = chair.read_ground_truth(folder, vocabulary)
    ours = [chair.score(chair.read_captions(file), truth, vocabulary).metrics for file in files]
    middle = time.process_time()
    synonyms = read_synonyms(folder / "synonyms.txt")
    plain = [plain_chair(file, truth, synonyms, lemmatizer) for file in files]
    end = time.process_time()
    for file, mine, theirs in zip(files, ours, plain, strict=True):
        equal = "equal" if list(mine.values()) == theirs else f"DIFFERENT, {theirs}"
        print(f"{file.name:36} " + " ".join(f"{value:.6f}" for value in mine.values()), equal)
    print(f"CPU seconds: ours {middle - start:.2f} (ground truth included), plain {end - middle:.2f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
