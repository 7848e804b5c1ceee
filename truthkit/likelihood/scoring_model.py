"""A second model that reads what the evaluated one wrote: for coherence, or as a judge. Loaded when first needed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from truthkit.statistics.intervals import FloatArray


class ScoringModel:
    """Log-probabilities of texts under a model by itself: no decoder, no steering.

    Args:
        name: hub id, folder or bundled name, as for `tk.load`; None is the bundled model.
        token_budget: how many tokens are read at a time.
    """

    def __init__(self, name: str | None = None, *, token_budget: int = 2048):
        self.name, self.token_budget = name, token_budget

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        from truthkit.models import load

        return load(self.name)

    def log_probs(self, prompts: Sequence[str], texts: Sequence[str]) -> list[tuple[float, int]]:
        """Of each text after its prompt the sum of its tokens' log-probabilities, and how many tokens it is.

        An empty text has the sum 0 of no tokens.

        Raises:
            ArgumentError: a prompt without tokens; a text without tokens of its own that is not empty; or more tokens
                than the model has room for.
            NotAvailableError: there is no such model.
        """
        from truthkit.likelihood.continuation import continued
        from truthkit.likelihood.log_probabilities import log_probabilities
        from truthkit.text.tokens import text_tokenizer

        model, processor = self._loaded
        tokenizer = text_tokenizer(processor, "scoring")
        read = [continued(tokenizer, *pair) if pair[1] else None for pair in zip(prompts, texts, strict=True)]
        some = [pair for pair in read if pair is not None]
        sums = iter(
            log_probabilities(
                model, [row for row, _ in some], [start for _, start in some], token_budget=self.token_budget
            )
        )
        return [(0.0, 0) if pair is None else (next(sums), len(pair[0]) - pair[1]) for pair in read]

    def features(self, texts: Sequence[str], *, max_tokens: int = 1024) -> FloatArray:
        """The last layer's hidden state at each text's last token, of its first `max_tokens`; (texts, features)."""
        import numpy as np
        import torch

        from truthkit.hf.sites import input_device
        from truthkit.text.tokens import text_ids, text_tokenizer

        model, processor = self._loaded
        tokenizer = text_tokenizer(processor, "features")
        rows = []
        for text in texts:
            ids = torch.tensor([text_ids(tokenizer, text)[:max_tokens]], device=input_device(model))
            with torch.no_grad():
                states = model(input_ids=ids, output_hidden_states=True).hidden_states[-1]
            rows.append(states[0, -1].float().cpu().numpy())
        return np.stack(rows)
