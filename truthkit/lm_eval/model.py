"""`--model truthkit`: the harness's Hugging Face model under a decoder and steering vectors."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from lm_eval.api.registry import register_model
from lm_eval.models.huggingface import HFLM
from tqdm import tqdm

from truthkit.activations.hooks import Hooked
from truthkit.cli.harness_arguments import read_arguments
from truthkit.decoding.discovery import PLAIN
from truthkit.decoding.engine.session import Session
from truthkit.errors import ArgumentError
from truthkit.likelihood.log_probabilities import log_probabilities_and_greedy

Request = tuple[Any, list[int], list[int]]
"""What the harness calls the request, and the token ids of its context and continuation."""

_ROWS = 2048
"""Scored at a time: the harness's cache has them afterwards."""

_TOKENS_PER_ITEM = 16
_LEAST_TOKENS = 512
_TOKENS_ON_A_GPU = 1 << 15


@register_model("truthkit")
class TruthkitLM(HFLM):
    r"""A model from `tk.load` for any task of the harness, decoding and scoring under a decoder and steering vectors.

        python -m truthkit.lm_eval run --model truthkit --tasks truthfulqa_mc2 \
            --model_args pretrained=org/name,decoder=dola:beta=0;layers=high,steer=v.safetensors:1.5;layers=14

    The harness splits its arguments at commas, so options of decoders and vectors are joined by semicolons. Choices are
    scored with what they begin with read once for all (`truthkit.likelihood`): the same log-probabilities as by one
    forward each.

    Args:
        pretrained: hub id, folder, `.gguf` file or name of a bundled model, as in `tk.load`; None is SmolLM2-135M.
        decoder: as `--decoder` of `truthkit eval`. Multiple choice wants beta=0.
        steer: as `--steer`; several are joined by "|".
        adapter, amateur: as there.
        allow_other_model: steer by vectors that were made from another model, too.
        revision, dtype: as in `tk.load`; dtype "auto" is what the checkpoint holds.
        device: where the model goes, as "cuda:0"; None, and "cuda" where there is none, leave it to `tk.load`.
        batch_size: answers written at a time, "auto" also; choices are read by as many tokens as memory has room for.
        **options: of the harness's Hugging Face model: max_length, add_bos_token, max_batch_size and so on.

    Raises:
        ArgumentError: a decoder that needs images or a passage, which the harness has none of, or that only searches
            for an answer where choices are asked for; or an option makes no sense.
        ModelError, NotAvailableError: as `tk.load`, decoders and vectors.
    """

    def __init__(
        self,
        pretrained: str | None = None,
        *,
        decoder: str = "greedy",
        steer: str | None = None,
        adapter: str | None = None,
        amateur: str | None = None,
        allow_other_model: bool = False,
        revision: str | None = None,
        dtype: str | None = None,
        device: str | None = None,
        batch_size: int | str = 1,
        **options: Any,
    ):
        spec, steers, model, processor, opponent = read_arguments(
            pretrained,
            decoder,
            steer,
            images=False,
            adapter=adapter,
            amateur=amateur,
            allow_other_model=allow_other_model,
            revision=revision,
            dtype=None if dtype == "auto" else dtype,
            device=device,
        )
        tokenizer = getattr(processor, "tokenizer", processor)
        super().__init__(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, **options)
        self.described = {"decoder": spec.text, "steer": [one.text for one in steers]}
        self._name, self._budget = spec.name, self._first_budget()
        self._stack = ExitStack()
        with ExitStack() as stack:
            entered = [stack.enter_context(one.build(model, processor)) for one in steers]
            attached = stack.enter_context(spec.build(model, processor, amateur=opponent))
            self._stack = stack.pop_all()
        self._steerings = [one for one in entered if isinstance(one, Hooked)]
        self._session = attached if isinstance(attached, Session) else None

    def close(self) -> None:
        """Take decoder and vectors off the model."""
        self._stack.close()

    def get_model_info(self) -> dict[str, Any]:
        return {**super().get_model_info(), **self.described}

    def _loglikelihood_tokens(
        self, requests: Sequence[Request], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        if self._session is None and self._name not in PLAIN:
            raise ArgumentError(
                f"{self._name} searches for an answer and gives a choice no probability of its own; take another one."
            )
        fits = [len(context) + len(answer) <= self.max_length for _, context, answer in requests]
        long = iter(
            super()._loglikelihood_tokens(
                [request for request, fit in zip(requests, fits, strict=True) if not fit], disable_tqdm=True
            )
            if not all(fits)
            else ()
        )
        order = sorted((i for i, fit in enumerate(fits) if fit), key=lambda i: requests[i][1] + requests[i][2])
        found: dict[int, tuple[float, bool]] = {}
        with tqdm(total=len(order), disable=disable_tqdm or self.rank != 0, desc="choices", unit="choice") as bar:
            for start in range(0, len(order), _ROWS):
                some = order[start : start + _ROWS]
                for i, answer in zip(some, self._score([requests[i] for i in some]), strict=True):
                    found[i] = answer
                    if requests[i][0] is not None:
                        self.cache_hook.add_partial("loglikelihood", requests[i][0], answer)
                bar.update(len(some))
        return [found[i] if fit else next(long) for i, fit in enumerate(fits)]

    def _score(self, requests: Sequence[Request]) -> list[tuple[float, bool]]:
        rows, starts = [context + answer for _, context, answer in requests], [len(one[1]) for one in requests]
        while True:
            try:
                scores, greedy = log_probabilities_and_greedy(
                    self.model, rows, starts, self._session, token_budget=self._budget, steerings=self._steerings
                )
                return list(zip(scores, greedy, strict=True))
            except torch.OutOfMemoryError:
                if self._budget <= _LEAST_TOKENS:
                    raise
                self._budget //= 2

    def _first_budget(self) -> int:
        """How many tokens of choices are read at a time, until memory does not suffice."""
        if self.model.device.type == "cuda":
            return _TOKENS_ON_A_GPU
        return max(_LEAST_TOKENS, _TOKENS_PER_ITEM * (self.batch_size if isinstance(self.batch_size, int) else 1))
