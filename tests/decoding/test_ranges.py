"""Ranges for sliders: read by hand from docstrings, and held against the decoders' own defaults."""

from __future__ import annotations

from tests.each import each
from truthkit.decoding.catalog import catalog
from truthkit.decoding.ranges import sensible_range

NUMBER, WHOLE = ("a number",), ("an integer",)


@each(
    ("words", "default", "kinds", "expected"),
    [
        ("plausibility cut-off in (0, 1]; 0 turns it off.", "0.1", NUMBER, (0, 1, 0.01)),
        ("share of the probability that A holds at least, in (0, 1].", "0.9", NUMBER, (0.01, 1, 0.01)),
        ("weight of the degeneration penalty, in [0, 1].", "0.6", NUMBER, (0, 1, 0.01)),
        ("how far the image is noised, 0 (faint) to 999.", "500", WHOLE, (0, 999, 1)),
        ("how many candidates to look at, at least 1.", "4", WHOLE, (1, 20, 1)),
        ("of the divergence, 0 or more; with 0 the view goes.", "0.05", NUMBER, (0, 0.2, 0.002)),
        ("what attention is multiplied by, above 0; usually 50.", "50.0", NUMBER, (2, 200, 2)),
        ("strength of the contrast; 0 is the model itself.", "3.0", NUMBER, (0, 20, 0.2)),
        ("the least strength.", "0.0", NUMBER, (0, 1, 0.01)),
        ("the score of all other tokens.", "-100.0", NUMBER, None),
        ("another one gives other noise.", "0", WHOLE, None),
        ("early exits", "high", ("'low' or 'high'", "integers joined by +"), None),
        ("the early exit, a block number.", "none", ("none", "an integer"), None),
        ("a share in [0, 1].", "7.0", NUMBER, None),
    ],
)
def test_ranges_by_hand(
    words: str, default: str, kinds: tuple[str, ...], expected: tuple[float, float, float] | None
) -> None:
    assert sensible_range(words, default, kinds) == expected


def test_every_default_is_within_its_range() -> None:
    ranged = [option for decoder in catalog() for option in decoder.options if option.range]
    assert len(ranged) > 40
    for option in ranged:
        assert option.range is not None
        assert option.range.least <= float(option.default) <= option.range.most, option
        assert 0 < option.range.step <= option.range.most - option.range.least
