"""Which blocks' outputs are early exits, as in truthkit."""

from __future__ import annotations


def exit_layers(layers: str | tuple[int, ...] | None, count: int) -> tuple[int, ...]:
    """Layer numbers in the order given, or the blocks that a word stands for.

    Args:
        layers: numbers, negative from the end; every second block of the "low" or "high" half; "all" but the last; or
            None, the blocks behind which 62.5 to 87.5 % of the depth are done, which are DeCo's 20 to 28 of 32.
        count: how many blocks the model has.

    Raises:
        ValueError: the model has no such layer, or no upper half.
    """
    if layers is None:
        shares = [(20 + step) / 32 for step in range(9)]
        return tuple(dict.fromkeys(max(int(share * count + 1e-6), 1) - 1 for share in shares))
    if layers == "low":
        first = 1 if count > 2 else 0
        return tuple(range(first, max(min(count // 2, 20) - 1, first + 1), 2))
    if layers == "high" and count > 1:
        return tuple(range(max(count // 2, count - 20, 1) - 1, count - 1, 2))
    if layers == "all":
        return tuple(range(max(count - 1, 1)))
    if isinstance(layers, str):
        raise ValueError(f"layers is {layers!r}; a model of {count} decoder block has none below the last.")
    if wrong := [layer for layer in layers if not -count <= layer < count]:
        raise ValueError(f"layers of early exits name {wrong[0]}; the model has {count} decoder blocks.")
    return tuple(layer % count for layer in layers)
