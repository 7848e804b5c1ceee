"""Small valid files changed a little: in their bytes, and in the structure of their JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

_RAW = {"@deep@": "[" * 2000 + "]" * 2000, "@digits@": "9" * 5000, "@huge@": "1e999", "@int@": "9" * 290}
WILD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 1.5, float("nan"), float("inf"), 10**18, "", " ", "x", "yes", "true", "\ud800", "\0",
    "é\u2028", "9" * 5000, "../x", [], {}, [[]], [None], ["x"], [1, 2], {"x": 1}, {"": None}, *_RAW,
)  # fmt: skip
_BYTES = (
    b"",
    b"\0",
    b"\xff",
    b"\n",
    b"\r",
    b'"',
    b"{",
    b"]",
    b",",
    b"\t",
    b"\\ud800",
    b"\xef\xbb\xbf",
    b"9" * 400,
    b"[" * 2000,
)

Op = tuple[int, int, int]

OPS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 1 << 16), st.integers(0, 1 << 16)), min_size=1, max_size=4)
"""What is done to a file, one after the other: a kind of change, and two numbers that say where and with what."""


def mutate(content: bytes, ops: Sequence[Op]) -> bytes:
    """The bytes of a file with these changes; even kinds change the structure, where it is JSON."""
    for kind, a, b in ops:
        lines = _lines(content) if kind % 2 == 0 else None
        content = _bytes(content, kind, a, b) if lines is None else _dumped(change(lines, kind, a, b))
    return content


def change(value: Any, kind: int, a: int, b: int) -> Any:
    """A value like this one, with one node replaced, dropped, doubled, renamed or overwritten by another one."""
    root = [value]
    nodes = list(_nodes(root))
    holder, key = nodes[a % len(nodes)]
    if kind in (0, 2):
        holder[key] = WILD[b % len(WILD)]
    elif kind == 4:
        other, place = nodes[b % len(nodes)]
        holder[key] = json.loads(json.dumps(other[place]))
    elif kind == 6 and isinstance(holder, dict):
        name = WILD[b % len(WILD)]
        holder[name if isinstance(name, str) else str(key).upper()] = holder.pop(key)
    elif holder is not root:
        holder.pop(key)
    return root[0] if root else None


def _nodes(holder: Any) -> Any:
    for key in list(holder) if isinstance(holder, dict) else range(len(holder)):
        yield holder, key
        if isinstance(holder[key], dict | list):
            yield from _nodes(holder[key])


def _lines(content: bytes) -> Any:
    """The values of JSON lines, or the one value; None for something else."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        pass
    try:
        return _Lines(json.loads(line) for line in content.splitlines() if line)
    except (ValueError, RecursionError):
        return None


class _Lines(list[Any]):
    """Values that stand on a line each."""


def _dumped(value: Any) -> bytes:
    each = value if isinstance(value, _Lines) else [value]
    text = "\n".join(map(json.dumps, each))
    for mark, raw in _RAW.items():
        text = text.replace(f'"{mark}"', raw)
    return text.encode()


def _bytes(content: bytes, kind: int, a: int, b: int) -> bytes:
    at = a % (len(content) + 1)
    match kind % 5:
        case 0:
            return content[:at] + _BYTES[b % len(_BYTES)] + content[at:]
        case 1:
            return content[:at] + bytes([b % 256]) + content[at + 1 :]
        case 2:
            return content[:at] + content[at + b % 64 :]
        case 3:
            return content[:at] + content[max(0, at - b % 64) :]
        case _:
            return content[:at]
