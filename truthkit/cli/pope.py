"""`truthkit pope`: POPE questions from one's own annotations."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from truthkit.cli.files import readable, writable_folder
from truthkit.errors import ArgumentError

STRATEGIES = ("random", "popular", "adversarial")
TEMPLATE = "Is there {article} {object} in the image?"

_EPILOG = """\
OBJECTS says what is in each image: JSON lines such as
  {"image": "kitchen.jpg", "objects": ["person", "cup", "oven"]}
or one JSON object from image to objects, or COCO's instances_*.json. Every image is asked for its first objects, and
for as many that it has not: any (random), the most frequent of all (popular), or those that most often share an image
with the object just asked for (adversarial). So be sure that the annotations name everything that can be seen.

DIR gets NAME_random.json, NAME_popular.json and NAME_adversarial.json, which `truthkit eval pope` and `truthkit score
pope` read. The draws are the official script's, so the same seed gives the same questions.

examples:
  truthkit pope objects.jsonl --out questions
  truthkit pope instances_val2014.json --out questions --name coco --images 500 --seed 1
  truthkit eval pope --data questions --images photographs --model M --out runs/mine
"""


def add_parser(subparsers: Any) -> None:
    """Add `pope` to the command line."""
    parser = subparsers.add_parser(
        "pope",
        help="make POPE questions from your own annotations",
        description="Make balanced yes/no questions about objects in images, as POPE's official sampler does.",
        epilog=_EPILOG,
    )
    parser.add_argument("objects", type=Path, metavar="OBJECTS", help="file with the objects of each image")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the question files")
    parser.add_argument("--name", default="pope", help="what their names begin with")
    parser.add_argument(
        "--strategies",
        default=",".join(STRATEGIES),
        metavar="A,B",
        help="how absent objects are chosen",
    )
    parser.add_argument(
        "--objects-per-image",
        type=int,
        default=3,
        metavar="N",
        help="present objects asked for; images with fewer are left out",
    )
    parser.add_argument("--images", type=int, metavar="N", help="draw so many images (default: all)")
    parser.add_argument("--template", default=TEMPLATE, metavar="TEXT", help="the question")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of every draw")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the question files and name them."""
    from truthkit.evaluation.tasks.pope.sampler import read_objects, sample_questions
    from truthkit.files.writing import write_atomically

    readable(args.objects, "OBJECTS")
    writable_folder(args.out, "--out")
    for name in ("objects_per_image", "images"):
        if (value := getattr(args, name)) is not None and value < 1:
            raise ArgumentError(f"--{name.replace('_', '-')} is {value}; expected at least 1.")
    if "{object}" not in args.template:
        raise ArgumentError(f"--template is {args.template!r}; expected {{object}} in it, and {{article}} before it.")
    strategies = [name.strip() for name in args.strategies.split(",")]
    files = {name: args.out / f"{args.name}_{name}.json" for name in strategies}
    if there := [path for path in files.values() if path.exists()]:
        raise ArgumentError(f"{there[0]} is there already; choose another --out or --name, or delete it.")
    found = sample_questions(
        read_objects(args.objects),
        strategies=strategies,
        objects_per_image=args.objects_per_image,
        image_count=args.images,
        seed=args.seed,
        template=args.template,
    )
    for name, questions in found.items():
        lines = [
            {"question_id": number, "image": question.image, "text": question.text, "label": question.label}
            for number, question in enumerate(questions, 1)
        ]
        write_atomically(files[name], lines, lines=True)
        images = len({question.image for question in questions})
        print(f"{files[name]}: {len(questions)} questions on {images} images")
    return 0
