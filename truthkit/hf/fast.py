"""Faster decoding steps on a CPU, the same arithmetic in another layout; used by every decoder, and open to plain
`generate`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from truthkit.hf.fast_linear import FastLinear
from truthkit.hf.packed_attention import packed_attention
from truthkit.hf.sites import text_decoder
from truthkit.hf.wrapping import plain_model


class FastDecoding:
    """The layout of `fast_decoding` for a plain model, to be put on as often as one likes (`running`)."""

    def __init__(self, model: Any):
        self._linear, self._decoder = FastLinear(model), text_decoder(model)

    @contextmanager
    def running(self) -> Iterator[None]:
        """See `fast_decoding`."""
        with self._linear.running(), packed_attention(self._decoder):
            yield


def fast_decoding(model: Any) -> AbstractContextManager[None]:
    """Run `model` in its fastest layout for a few rows: linear layers (`fast_linear`) and attention
    (`packed_attention`).

    Decoders do this by themselves; around a plain `generate`, greedy or sampling gains as much. Logits may differ in
    the last bits, as with any change of batch size. Afterwards the model is as it was.

    Args:
        model: any model of transformers; PEFT and `torch.compile` wrappers are looked through.

    Example:
        >>> with tk.fast_decoding(model):
        ...     model.generate(**inputs, cache=tk.GrowingCache(config=model.config))
    """
    return FastDecoding(plain_model(model)).running()
