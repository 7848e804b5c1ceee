"""What goes to the page while answers are made, as JSON values.

Texts go through `printable`: a control or bidirectional character in a model's output shows as an escape.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from PIL import Image

from truthkit.app.patches import PatchCosines
from truthkit.decoding.engine.source import Notes
from truthkit.generation.explain import INTERACTION, Candidate, Step
from truthkit.images.transforms import TRANSFORMS, transformed
from truthkit.printable import printable

Event = dict[str, Any]
Emit = Callable[[Event], None]


_THUMBNAIL = 320  # pixels of the longer side


def token_event(index: int, piece: str, step: Step) -> Event:
    """A token of answer `index`: its text, where it stood, and which view said what."""
    standing = step.standing
    assert standing is not None
    return {
        "event": "token",
        "index": index,
        "piece": printable(piece),
        "token": printable(step.token),
        "id": step.token_id,
        "probability": _rounded(step.probability),
        "entropy": _rounded(standing.entropy),
        "rank": standing.rank,
        "push": _rounded(standing.push),
        "instead_of": printable(step.main_choice.token) if step.pushed_by else None,
        "pushed_by": step.pushed_by,
        "views": [
            {
                "name": view.name,
                "layers": view.layers,
                "push": _rounded(view.contribution),
                "top": _candidates(view.candidates),
            }
            for view in step.views
        ]
        + [{"name": INTERACTION, "layers": (), "push": _rounded(step.interaction), "top": []}] * bool(step.interaction),
        "combined": _candidates(step.combined),
    }


def projections_event(index: int, vector: int, values: Mapping[int, Iterable[float]]) -> Event:
    """For each layer of a loaded vector one number per token of answer `index`."""
    layers = {layer: [_rounded(value) for value in row] for layer, row in values.items()}
    return {"event": "projections", "index": index, "vector": vector, "layers": layers}


def transforms_event(index: int, notes: Notes, images: Iterable[Image.Image], stop: Callable[[], bool]) -> Event | None:
    """Each image with its six transforms as RITUAL would draw them for the last prompt, the drawn one marked.

    Blur and jitter take seconds on a photo at full size, so `stop` is asked in between; None if it says so.
    """
    sheets = []
    for image, drawn, seed in zip(images, notes["chosen"][0], notes["seeds"][0], strict=True):
        cells = [{"name": "original", "src": _data_url(image), "drawn": False}]
        for name in TRANSFORMS:
            if stop():
                return None
            made, _ = transformed(image, name, seed=seed, size=notes["crop_size"])
            cells.append({"name": name.replace("_", " "), "src": _data_url(made), "drawn": name == drawn})
        sheets.append(cells)
    event: Event = {"event": "transforms", "index": index, "sheets": sheets, "reply": None, "fell_back": False}
    if "replies" in notes:
        event |= {"reply": printable(notes["replies"][0]), "fell_back": notes["fell_back"][0]}
    return event


def noised_event(index: int, step: int, seen: Image.Image | None, noised: Image.Image | None) -> Event:
    """An image as the model sees it, and as VCD's second view does; without pictures where pixels are packed."""
    event: Event = {"event": "noised", "index": index, "step": step, "seen": None, "noised": None}
    if seen is not None and noised is not None:
        event |= {"seen": _data_url(seen), "noised": _data_url(noised)}
    return event


def cosines_event(layer: int, cosines: PatchCosines, seen: Image.Image) -> Event:
    """What `patch_cosines` found, over the image that was seen."""
    values = [[round(value, 4) if math.isfinite(value) else None for value in row] for row in cosines.values.tolist()]
    grid = {"rows": cosines.rows, "columns": cosines.columns, "values": values}
    return {"event": "cosines", "layer": layer, "src": _data_url(seen)} | grid


def _candidates(candidates: Iterable[Candidate]) -> list[tuple[str, float | None]]:
    return [(printable(one.token), _rounded(one.probability)) for one in candidates]


def _rounded(value: float | None) -> float | None:
    """Five digits; None for what JSON has no number for."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.5g}")


def _data_url(image: Image.Image) -> str:
    small = image.copy()
    small.thumbnail((_THUMBNAIL, _THUMBNAIL))
    stream = io.BytesIO()
    small.save(stream, "PNG" if max(image.size) <= _THUMBNAIL else "JPEG", quality=85)
    kind = "png" if max(image.size) <= _THUMBNAIL else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"
