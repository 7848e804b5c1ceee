"""What steering's modes and vector files are called; to check them nothing is imported."""

from __future__ import annotations

from truthkit.errors import ArgumentError, did_you_mean

MODES = ("add", "relative", "opposed", "project_out", "scale", "clamp", "rotate", "angle", "patch")
"""Ways to change a hidden state; see `truthkit.steering.edits`."""

FORMATS = {".gguf": "gguf", ".pt": "lm-eval", ".npz": "numpy", ".safetensors": "truthkit"}
"""Endings of vector files, and whose they are."""


def check_mode(mode: str) -> str:
    """`mode` if it is one of `MODES`.

    Raises:
        ArgumentError: it is not.
    """
    if mode not in MODES:
        close = did_you_mean(str(mode), MODES)
        raise ArgumentError(f"mode is {mode!r}{close}; expected one of {', '.join(map(repr, MODES))}.")
    return mode
