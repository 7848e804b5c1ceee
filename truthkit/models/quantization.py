"""Weights in 4 or 8 bits by bitsandbytes, on GPU and CPU alike."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from typing import TYPE_CHECKING, get_args

from truthkit.errors import ArgumentError, MissingExtraError
from truthkit.models.types import Quantization

if TYPE_CHECKING:
    import torch
    from transformers import BitsAndBytesConfig


class _OncePerText(logging.Filter):
    """Lets each distinct text through once."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        new = text not in self._seen
        self._seen.add(text)
        return new


_ONCE = _OncePerText()


def quantization_config(quantization: Quantization, compute_dtype: torch.dtype) -> BitsAndBytesConfig:
    """The bitsandbytes settings: NF4 with products in `compute_dtype`, or LLM.int8.

    LLM.int8 logs a line about its cast to float16 for every layer and token; from here on it is logged once.

    Raises:
        ArgumentError: `quantization` is neither "4bit" nor "8bit".
        MissingExtraError: bitsandbytes is not installed.
    """
    if quantization not in get_args(Quantization):
        raise ArgumentError(f"quantization={quantization!r} is not known; use '4bit', '8bit' or None.")
    if find_spec("bitsandbytes") is None:
        raise MissingExtraError(
            f"quantization={quantization!r} needs the package bitsandbytes, which is not installed: "
            "`pip install 'truthkit[quantization]'`."
        )
    from transformers import BitsAndBytesConfig

    if quantization == "4bit":
        return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=compute_dtype)
    logging.getLogger("bitsandbytes.autograd._functions").addFilter(_ONCE)
    return BitsAndBytesConfig(load_in_8bit=True)
