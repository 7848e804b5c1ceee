"""How `generate` runs, whatever the decoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from truthkit.errors import ArgumentError


@dataclass(frozen=True)
class AnswerSettings:
    """Arguments of `generate`; what is None is left to the model's generation config.

    Attributes:
        max_new_tokens: at most this many.
        sample: draw tokens instead of taking the most probable one.
        temperature, top_p: for sampling.
        seed: set before every answer, so that decoders meet the same chances.
        num_beams: beam search where above 1.
    """

    max_new_tokens: int = 64
    sample: bool = False
    temperature: float | None = None
    top_p: float | None = None
    seed: int = 0
    num_beams: int = 1

    def __post_init__(self) -> None:
        for name in ("max_new_tokens", "num_beams"):
            if (value := getattr(self, name)) < 1:
                raise ArgumentError(f"{name} is {value}; expected at least 1.")
        if self.temperature is not None and not self.temperature > 0:
            raise ArgumentError(f"temperature is {self.temperature}; expected a number above 0.")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ArgumentError(f"top_p is {self.top_p}; expected a number in (0, 1].")

    def check_one_row(self) -> None:
        """Raise an ArgumentError where tokens of one answer come from different rows, so that no trace follows it."""
        if self.num_beams > 1:
            raise ArgumentError("an explanation follows one row, and beams change rows; leave out one of the two.")

    def for_generate(self) -> dict[str, Any]:
        """Keyword arguments of `generate`."""
        options: dict[str, Any] = {
            "max_new_tokens": self.max_new_tokens,
            "do_sample": self.sample,
            "num_beams": self.num_beams,
        }
        if not self.sample:  # a generation config's own settings for sampling would only bring warnings
            return options | {"temperature": None, "top_p": None, "top_k": None}
        given = {"temperature": self.temperature, "top_p": self.top_p}
        return options | {name: value for name, value in given.items() if value is not None}
