r"""The data that `recipes/study_small.toml` needs beyond what is downloaded: drawn scenes, and prompts to go on from.

    python recipes/study_data.py --out runs/study-data --factor data/factor/news_factor.csv
    truthkit study recipes/study_small.toml --out runs/study --set DATA=data --set MADE=runs/study-data

Scenes are drawn like those that `scene-vlm` learnt from, but no object has its usual partner with it: POPE's questions
about them, their objects for CHAIR and for detection. The prompts are the first words of the articles of FACTOR's news
set, with the words that follow as references. All is seeded: the same files come out of it everywhere.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from pathlib import Path

from truthkit.errors import TruthkitError
from truthkit.files.reading import read_records
from truthkit.files.writing import write_atomically
from truthkit.scenes import CAPTION_PROMPT, held_out, render
from truthkit.scenes.questions import KINDS, questions
from truthkit.scenes.scene import OBJECTS

_PROMPT, _REFERENCE = 24, 48
"""Words of a prompt, and of its reference."""


def main(argv: Sequence[str] | None = None) -> int:
    """Write what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder to write")
    add("--factor", type=Path, required=True, help="news_factor.csv")
    add("--scenes", type=int, default=300, help="drawn scenes (default: %(default)s)")
    add("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    try:
        write_scenes(args.out, args.scenes, args.seed)
        write_prompts(args.out / "prompts.jsonl", args.factor)
    except TruthkitError as error:
        print(f"study_data: {error}", file=sys.stderr)
        return 2
    print(f"{args.out}: {args.scenes} scenes, and prompts of {args.factor}")
    return 0


def write_scenes(folder: Path, count: int, seed: int) -> None:
    """Pictures, POPE's question files, CHAIR's objects and those of `truthkit eval detect`."""
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    scenes, rng = held_out(count, seed), random.Random(seed)
    names = [f"{number:06}.png" for number in range(1, count + 1)]
    for name, scene in zip(names, scenes, strict=True):
        render(scene).save(images / name)
    for kind in KINDS:
        asked = [
            (name, one) for name, scene in zip(names, scenes, strict=True) for one in questions(scene, rng, kind=kind)
        ]
        lines = [
            {"question_id": number, "image": name, "text": one.text, "label": "yes" if one.present else "no"}
            for number, (name, one) in enumerate(asked, 1)
        ]
        write_atomically(folder / "pope" / f"scenes_{kind}.json", lines, lines=True)
    there = [sorted(set(scene.names)) for scene in scenes]
    write_atomically(folder / "chair" / "chair_gt_nltk.json", {str(n): one for n, one in enumerate(there, 1)})
    (folder / "chair" / "synonyms.txt").write_text("".join(f"{name}\n" for name in OBJECTS), encoding="utf-8")
    shown = [
        {"image": f"images/{name}", "prompt": CAPTION_PROMPT, "objects": one}
        for name, one in zip(names, there, strict=True)
    ]
    write_atomically(folder / "scenes.jsonl", shown, lines=True)


def write_prompts(path: Path, factor: Path) -> None:
    """The beginning of every article, and what follows it."""
    articles: dict[str, str] = {}
    for record in read_records(factor):
        text = record.text("full_prefix")
        name = str(record.fields["doc_id"])
        articles[name] = max(articles.get(name, ""), text, key=len)
    lines = []
    for text in articles.values():
        words = text.split()
        if len(words) >= _PROMPT + _REFERENCE:
            cut = _PROMPT + _REFERENCE
            lines.append({"prompt": " ".join(words[:_PROMPT]), "reference": " ".join(words[_PROMPT:cut])})
    write_atomically(path, lines, lines=True)


if __name__ == "__main__":
    sys.exit(main())
