"""Objects that are not in the picture: VCD, M3ID, RITUAL and RITUAL+."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

from demo_parts.screen import Part, Result, compared, mark, measured
from rich.table import Table
from rich.text import Text

import truthkit as tk
from truthkit.images.sheet import transform_sheet
from truthkit.output import Output
from truthkit.printable import printable
from truthkit.scenes import CAPTION_PROMPT, Scene, held_out, mentions, render
from truthkit.text.encode import encode_prompts

PART = Part(
    "Objects that are not there",
    "A model that describes pictures adds what usually comes along: a fork where there is a knife.",
    "VCD takes away what the model would say of a noisy picture, M3ID what it would say of none. RITUAL adds what it "
    "would say of a transformed picture, RITUAL+ lets the model choose the transform.",
    "Twenty-four drawn pictures of objects without their usual company, drawn by seed 3; two are shown, all are "
    "counted. The model is scene-vlm, a test model of 2.3 million parameters that was trained to add that company.",
)

SEED = 3
SHOWN = 2


class Counted(NamedTuple):
    """What a caption invents and leaves out."""

    said: str
    invented: list[str]
    missing: list[str]


def count(scene: Scene, said: str) -> Counted:
    """Compare a caption with what is in the picture."""
    named = mentions(said)
    return Counted(
        said,
        [name for name in named if name not in scene.names],
        [name for name in scene.names if name not in named],
    )


def show(console: Output, *, quick: bool = False) -> list[Result]:
    """Describe the pictures under each method, print, and give the results."""
    scenes = held_out(4 if quick else 24, seed=SEED)
    pictures = [[render(scene)] for scene in scenes]
    model, processor = tk.load("scene-vlm")
    inputs = encode_prompts(processor, [CAPTION_PROMPT] * len(scenes), pictures)
    plus = tk.RITUALPlus(model, processor, images=pictures)
    blocks: dict[str, AbstractContextManager[Any]] = {
        "greedy": nullcontext(),
        "VCD": tk.VCD(model),
        "M3ID": tk.M3ID(model, processor),
        "RITUAL": tk.RITUAL(model, processor, images=pictures),
        "RITUAL+": plus,
    }
    found: dict[str, list[Counted]] = {}
    fell_back: Sequence[bool] = ()
    for name, block in blocks.items():
        with block as entered:
            output = model.generate(**inputs, max_new_tokens=12 if quick else 40, do_sample=False)
            if name == "RITUAL+":
                fell_back = entered.notes["fell_back"]
        texts = processor.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        found[name] = [count(scene, text.strip()) for scene, text in zip(scenes, texts, strict=True)]

    for number, scene in enumerate(scenes[:SHOWN]):
        table = Table(title=f"Picture {number + 1} shows: {', '.join(scene.names)}", title_justify="left", expand=True)
        for column in ("", "“Describe the image.”", "invented", "left out"):
            table.add_column(column)
        for name, some in found.items():
            one = some[number]
            invented = Text.assemble(mark(not one.invented), f" {', '.join(one.invented) or 'none'}")
            table.add_row(name, Text(printable(one.said)), invented, ", ".join(one.missing) or "none")
        console.print(table, "")

    results = [
        compared(
            name,
            f"{what} ↓",
            (_sum(found["greedy"], field), _sum(some, field)),
            [(-len(getattr(a, field)), -len(getattr(b, field))) for a, b in zip(found["greedy"], some, strict=True)],
        )
        for name, some in found.items()
        if name != "greedy"
        for field, what in (("invented", "objects invented"), ("missing", "objects left out"))
    ]
    folder = Path(tempfile.mkdtemp(prefix="truthkit-demo-"))
    for number, (picture,) in enumerate(pictures[:SHOWN], start=1):
        picture.resize((384, 384), resample=0).save(folder / f"picture{number}.png")
    transform_sheet(pictures[0][0]).save(folder / "transforms.png")
    remarks = ["Whether a method helps a real model is for a benchmark on that model; this one was made to err."]
    if any(fell_back):
        remarks.append(
            f"RITUAL+ could not read the model's choice for {sum(fell_back)} of {len(scenes)} pictures, and drew the "
            "transform there, as RITUAL does."
        )
    measured(console, results, remarks)
    console.print(f"Both pictures, and RITUAL's transforms of the first: {folder}", "", soft_wrap=True)
    return results


def _sum(some: Sequence[Counted], field: str) -> str:
    return str(sum(len(getattr(one, field)) for one in some))
