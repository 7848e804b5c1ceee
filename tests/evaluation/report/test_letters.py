"""Text in drawings fits: estimated widths are not below those of a wide sans-serif font. Oracle: the font itself."""

from __future__ import annotations

import string
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from PIL import ImageFont

from tests.conftest import ROOT
from truthkit.evaluation.report.letters import fitted, text_width

_BOLD = 1.13  # wider than regular
_SVG = "{http://www.w3.org/2000/svg}"
Box = tuple[float, float, float, float]


def dejavu() -> ImageFont.FreeTypeFont:
    matplotlib = pytest.importorskip("matplotlib", reason="the extra plots, whose fonts are the oracle")
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), 1000)


def test_widths() -> None:
    font = dejavu()
    for text in (*string.printable[:95], "ritual, sampled at 1", "vcd:alpha=0.5+m3id", "GREEDY", "näïve – 3 · −1…"):
        wide = font.getlength(text) / 1000
        assert wide * 0.999 <= text_width(text, 1) <= wide * 1.15 + 0.03, text
    assert text_width("日本", 10) == 20


def test_fitted() -> None:
    assert fitted("greedy", 100, 12) == "greedy"
    short = fitted("a decoder with a long name, sampled at 1", 100, 12)
    assert short.endswith("…")
    assert 80 < text_width(short, 12) <= 100
    assert fitted("greedy", 1, 12) == "…"


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "assets").glob("*.svg")), ids=lambda path: path.name)
def test_drawings_of_the_documentation(path: Path) -> None:
    """Every text stands within the smallest box around its middle."""
    texts, boxes = [], []

    def walk(node: ElementTree.Element, style: dict[str, str]) -> None:
        style = style | {k: v for k, v in node.attrib.items() if k in ("font-size", "font-weight", "text-anchor")}
        if node.tag == f"{_SVG}rect":
            x, y, width, height = (float(node.attrib[name]) for name in ("x", "y", "width", "height"))
            boxes.append((x, y, x + width, y + height))
        if node.tag == f"{_SVG}text":
            runs = [(node.text, style)]
            runs += [run for child in node for run in ((child.text, style | child.attrib), (child.tail, style))]
            wide = sum(text_width(text or "", float(of["font-size"])) * _weight(of) for text, of in runs)
            left = float(node.attrib["x"]) - {"start": 0.0, "middle": wide / 2}[style.get("text-anchor", "start")]
            texts.append((left, float(node.attrib["y"]), left + wide, "".join(node.itertext())))
        for child in node:
            walk(child, style)

    walk(ElementTree.parse(path).getroot(), {})
    assert len(texts) > 10
    for left, y, right, text in texts:
        middle = (left + right) / 2
        around = [box for box in boxes if box[0] <= middle <= box[2] and box[1] <= y <= box[3]]
        box = min(around, key=lambda box: (box[2] - box[0]) * (box[3] - box[1]))
        assert box[0] + 4 <= left, text
        assert right <= box[2] - 4, text


def _weight(style: dict[str, str]) -> float:
    return _BOLD if style.get("font-weight") == "bold" else 1.0
