"""Types that the arguments of `tk.load` share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from truthkit.errors import ArgumentError

if TYPE_CHECKING:
    import torch

Quantization: TypeAlias = Literal["4bit", "8bit"]

Dtype: TypeAlias = "torch.dtype | str"
"""A torch dtype, its name ("bfloat16"), or "auto" for what the checkpoint holds."""

DeviceMap: TypeAlias = "str | int | torch.device | dict[str, Any]"
"""What accelerate takes: "auto", a device, or a dict from module name to device."""


TensorParallel: TypeAlias = "Literal['auto'] | dict[str, str]"
"""The model's own plan, or rules that come before it: from a module's name to a style of transformers."""


def no_dtype(dtype: Any) -> ArgumentError:
    """The error for what is no dtype of weights."""
    return ArgumentError(
        f"dtype={dtype!r} is not a floating-point torch dtype; use 'float32', 'bfloat16', 'float16' or 'auto' "
        "(quantization='4bit' or '8bit' for fewer bits)."
    )
