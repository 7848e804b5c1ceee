"""What steering does to a hidden state: add, project out, scale, clamp, turn or patch.

`h` is a hidden state, `v` the vector, `û = v / |v|` its direction, `c = h·û` the component along it, `s` the strength.

| mode | result | note |
| --- | --- | --- |
| `"add"` | h + s·v | 0 changes nothing |
| `"relative"` | h + s·│h│·û | as large a part of every state; with `keep_norm` the form of VTI (arXiv 2410.15778) |
| `"opposed"` | h + s·(1 + max(0, −c/│h│))·│h│·û | more where `h` points away; with `keep_norm` VISTA's (2502.03628) |
| `"project_out"` | h − s·c·û | 1 removes the component |
| `"scale"` | h + (s − 1)·c·û | 1 changes nothing |
| `"clamp"` | h + (s·│v│ − c)·û | the component becomes s times the vector's length |
| `"rotate"` | │h│·(cos(θ − s)·û + sin(θ − s)·ŵ) | s radians nearer to û in the plane of both, and no further than û |
| `"angle"` | h − c·û − d·ŵ + √(c² + d²)·(cos s·û + sin s·ŵ) | its part in a fixed plane, turned to s radians from û |
| `"patch"` | h + s·(v − h) | 1 puts `v` in the place of `h` |

In `"rotate"`, ours, `θ` is the angle from û to `h`, and `ŵ` the direction of what of `h` is across û; a negative s
turns away, no further than −û. In `"angle"`, angular steering (arXiv 2510.26243), `ŵ` is the direction of what of a
given second one is across û, and `d = h·ŵ`; with the condition `Cosine(v, above=0)` it is the paper's adaptive form.
"""

from __future__ import annotations

import math

import torch


def edited(
    hidden: torch.Tensor,
    vector: torch.Tensor,
    strength: torch.Tensor | float,
    mode: str,
    plane: torch.Tensor | None = None,
) -> torch.Tensor:
    """The changed hidden states.

    Args:
        hidden: (rows, width, features).
        vector: (features,), (rows, 1, features) or (rows, width, features), of `hidden`'s dtype and device.
        strength: a number, or (rows, 1, 1).
        mode: one of `truthkit.steering.names.MODES`.
        plane: for "angle" the second direction, shaped as `vector`; not along it.
    """
    if mode == "add":
        return hidden + strength * vector if isinstance(strength, torch.Tensor) else hidden.add(vector, alpha=strength)
    if mode == "patch":
        return hidden + strength * (vector - hidden)
    length = vector.norm(dim=-1, keepdim=True)
    direction = vector / length.clamp_min(torch.finfo(vector.dtype).tiny)
    if mode == "relative":
        return hidden + strength * hidden.norm(dim=-1, keepdim=True) * direction
    component = (hidden * direction).sum(dim=-1, keepdim=True)
    if mode == "opposed":  # s·│h│·(1 + max(0, −c/│h│))
        return hidden + strength * (hidden.norm(dim=-1, keepdim=True) + (-component).clamp_min(0)) * direction
    if mode == "rotate":
        return _rotated(hidden, direction, component, strength)
    if mode == "angle":
        assert plane is not None
        return _turned(hidden, direction, component, plane, strength)
    if mode == "project_out":
        return hidden - strength * component * direction
    if mode == "scale":
        return hidden + (strength - 1.0) * component * direction
    return hidden + (strength * length - component) * direction


def _rotated(
    hidden: torch.Tensor, direction: torch.Tensor, component: torch.Tensor, strength: torch.Tensor | float
) -> torch.Tensor:
    across = hidden - component * direction
    width, length = across.norm(dim=-1, keepdim=True), hidden.norm(dim=-1, keepdim=True)
    angle = (torch.atan2(width, component) - strength).clamp(0, torch.pi)
    unit = across / width.clamp_min(torch.finfo(across.dtype).tiny)
    return length * (angle.cos() * direction + angle.sin() * unit)


def _turned(
    hidden: torch.Tensor,
    direction: torch.Tensor,
    component: torch.Tensor,
    plane: torch.Tensor,
    angle: torch.Tensor | float,
) -> torch.Tensor:
    across = plane - (plane * direction).sum(dim=-1, keepdim=True) * direction
    across = across / across.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(across.dtype).tiny)
    other = (hidden * across).sum(dim=-1, keepdim=True)
    radius = torch.hypot(component, other)
    cos, sin = (angle.cos(), angle.sin()) if isinstance(angle, torch.Tensor) else (math.cos(angle), math.sin(angle))
    return hidden + (radius * cos - component) * direction + (radius * sin - other) * across


def with_norm_of(changed: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """`changed`, rescaled to the length that each hidden state had before."""
    length = changed.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(changed.dtype).tiny)
    return changed * (hidden.norm(dim=-1, keepdim=True) / length)
