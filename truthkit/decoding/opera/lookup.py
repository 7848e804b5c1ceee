"""Which tokens may come next, for the beams of every prompt: log-probabilities after the logits processors."""

from __future__ import annotations

from typing import Any

import torch

from truthkit.decoding.opera.beams import PromptBeams, Settings
from truthkit.errors import ModelError


def look_up(
    rows: list[PromptBeams], settings: Settings, prompts: torch.Tensor, logits: torch.Tensor, processors: Any
) -> None:
    """Tell each prompt's beams which tokens may come next.

    Args:
        rows: the prompts'.
        settings: of the call.
        prompts: shape (batch, length).
        logits: of each beam's newest token, shape (batch, beams, vocabulary); those of a row that waits are not read.
        processors: of the call.
    """
    waiting = [row for row in rows if row.done or row.waits]
    log_probs = logits.to(device=prompts.device, dtype=torch.float32).log_softmax(dim=-1)
    log_probs = log_probs.expand(-1, settings.beams, -1)
    for length in {row.tokens.shape[1] for row in rows if row not in waiting} if processors else ():
        ids = torch.stack([_as_long(row.tokens, settings.beams, length) for row in rows]).to(prompts.device)
        before = prompts[:, None].expand(-1, settings.beams, -1)
        flat = torch.cat([before, ids], dim=-1).flatten(0, 1)
        processed = processors(flat, log_probs.flatten(0, 1).clone()).view(log_probs.shape)
        here = torch.tensor([row.tokens.shape[1] == length for row in rows], device=prompts.device)
        log_probs = torch.where(here[:, None, None], processed, log_probs)
    best, ids = log_probs.topk(min(settings.looked_up, log_probs.shape[-1]), dim=-1)
    best, ids = best.double().cpu(), ids.cpu()
    for number, row in enumerate(rows):
        if row in waiting:
            continue
        count = len(row.tokens)
        if best[number, :count].isnan().any() or not best[number, :count].isfinite().any():
            raise ModelError(
                f"the scores of prompt {number} are NaN, or rule out every token; check the weights, the dtype "
                "(float16 overflows: try bfloat16 or float32) and the logits processors."
            )
        row.expects(best[number, :count], ids[number, :count])


def _as_long(tokens: torch.Tensor, beams: int, length: int) -> torch.Tensor:
    """Responses as `beams` rows of `length` tokens, for processors that count rows; what is added is not read."""
    tokens = torch.nn.functional.pad(tokens, (0, length - tokens.shape[1]))
    return torch.cat([tokens, tokens[:1].expand(beams - len(tokens), -1)])
