"""Which attention implementation a model runs, while blocks want another one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_LOCK = threading.Lock()
_HELD: dict[int, tuple[str, list[tuple[int, str]]]] = {}
"""By a config's id: what it names outside of all blocks, and what the blocks that are open want, with their ranks."""


def outside(config: Any) -> str:
    """The implementation that a text config names outside of all blocks."""
    held = _HELD.get(id(config))
    return str(config._attn_implementation if held is None else held[0])


@contextmanager
def implementation(config: Any, name: str, rank: int) -> Iterator[None]:
    """Let a text config name the attention implementation `name` in this block.

    Blocks may be left in any order; the last one to go puts back what was there.

    Args:
        config: of the text decoder.
        name: as registered with transformers.
        rank: of several blocks the one with the highest rank has its way.
    """
    wish = rank, name
    with _LOCK:
        before, wishes = _HELD.setdefault(id(config), (config._attn_implementation, []))
        wishes.append(wish)
        config._attn_implementation = max(wishes)[1]
    try:
        yield
    finally:
        with _LOCK:
            wishes.remove(wish)
            config._attn_implementation = max(wishes)[1] if wishes else before
            if not wishes:
                del _HELD[id(config)]
