"""`truthkit transforms`: what RITUAL does to an image, in one picture."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from truthkit.cli.files import writable
from truthkit.errors import ArgumentError
from truthkit.files.writing import replacing, writing

_ENDINGS = (".png", ".jpg", ".jpeg", ".webp")

_EPILOG = """\
RITUAL asks the model twice, with the image and with a transform of it, and adds the answers' logits:
  horizontal_flip, vertical_flip
  rotation       by -180 to 180 degrees, corners black
  color_jitter   brightness, contrast and saturation times 0 to 2, any hue, in random order
  gaussian_blur  13 x 13 pixels, sigma 1.5 to 2
  crop           8 to 100 % of the area, resized

A draw depends on the image, the prompt and the seed, and on nothing else: the same item is always transformed in the
same way. `truthkit generate --image photo.jpg --decoder ritual` says which transform it drew.

example:
  truthkit transforms --image photo.jpg --out sheet.png
"""


def add_parser(subparsers: Any) -> None:
    """Add `transforms` to the command line."""
    parser = subparsers.add_parser(
        "transforms",
        help="what RITUAL's transforms do to an image",
        description="Draw RITUAL's six transforms of an image, beside it in one picture.",
        epilog=_EPILOG,
    )
    parser.add_argument("--image", metavar="FILE", required=True, help="the image")
    parser.add_argument("--out", metavar="FILE", required=True, help=f"the picture to write: {', '.join(_ENDINGS)}")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="other draws of the same item")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the picture and name it; 0 if it could be written."""
    image_path, out = Path(args.image), writable(args.out, "--out", _ENDINGS)
    if out.exists() and image_path.exists() and out.samefile(image_path):
        raise ArgumentError(f"--out is the image itself, {args.out!r}; name another file.")

    from truthkit.images.reading import read_image
    from truthkit.images.sheet import transform_sheet
    from truthkit.images.transforms import content_seed

    image = read_image(args.image)
    sheet = transform_sheet(image, seed=content_seed(image, "", args.seed))
    with writing(out), replacing(out) as part:
        sheet.save(part, quality=95)
    print(out)
    return 0
