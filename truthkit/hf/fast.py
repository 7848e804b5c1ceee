"""Faster decoding steps on a CPU, the same arithmetic in another layout; used by every decoder, and open to plain
`generate`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from truthkit.hf.fast_linear import fast_linear
from truthkit.hf.packed_attention import packed_attention
from truthkit.hf.sites import text_decoder
from truthkit.hf.wrapping import plain_model


@contextmanager
def fast_decoding(model: Any) -> Iterator[None]:
    """Run `model` in its fastest layout for a few rows: linear layers (`fast_linear`) and attention
    (`packed_attention`).

    Decoders do this by themselves; around a plain `generate`, greedy or sampling gains as much. Logits may differ in
    the last bits, as with any change of batch size. Afterwards the model is as it was.

    Example:
        >>> with tk.fast_decoding(model):
        ...     model.generate(**inputs, cache=tk.GrowingCache(config=model.config))
    """
    model = plain_model(model)
    with fast_linear(model), packed_attention(text_decoder(model)):
        yield
