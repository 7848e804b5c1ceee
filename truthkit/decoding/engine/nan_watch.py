"""NaN logits, found where they arise without holding up the device."""

from __future__ import annotations

import torch

from truthkit.errors import ModelError

AT_ONCE = {"cpu"}
"""Device types on which a look waits for nothing."""


class NanWatch:
    """Looks at every forward.

    Args:
        decoder: the name of the method.
        model: the plain model.
    """

    def __init__(self, decoder: str, model: torch.nn.Module):
        self._decoder, self._model = decoder, model
        self._found: torch.Tensor | None = None

    def forget(self) -> None:
        """Nothing was found."""
        self._found = None

    def look(self, found: torch.Tensor) -> None:
        """At what `nan_in` said of a forward's scores; on a CPU NaN raises at once."""
        self._found = found if self._found is None else self._found | found
        if found.device.type in AT_ONCE:  # elsewhere one look at the end, not a synchronisation per token
            self.raise_if_found()

    def raise_if_found(self) -> None:
        """Raises:
        ModelError: there was NaN.
        """
        if self._found is not None and bool(self._found):
            raise ModelError(
                f"{self._decoder} met NaN logits from {type(self._model).__name__} in {self._model.dtype}. Check the "
                "model's weights, or load it in another dtype (dtype=torch.float32 or torch.bfloat16)."
            )


def nan_in(scores: torch.Tensor) -> torch.Tensor:
    """Whether there is NaN in scores of shape (batch, positions, vocabulary); one bool, on their device."""
    return scores.amax().isnan()
