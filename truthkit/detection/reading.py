"""Given answers read in one pass: for each token its log-probability, and what else a detector asks for.

Rows are padded on the left and batched by length, whichever side the tokenizer pads on, so that a row's figures are
those that it has alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from truthkit.activations.hooks import hook_states
from truthkit.decoding.engine.decoder import Decoder
from truthkit.decoding.engine.view import ViewLogits
from truthkit.detection.asked import Asked, Span
from truthkit.errors import ArgumentError
from truthkit.generation.pieces import Pieces
from truthkit.hf.attention import Asked as AskedOfAttention
from truthkit.hf.attention import asking, check_readable
from truthkit.hf.ownership import Block
from truthkit.hf.room import check_room
from truthkit.hf.sites import decoder_blocks, input_device, resolve_layers, text_decoder
from truthkit.hf.wrapping import language_half, plain_model
from truthkit.statistics.intervals import FloatArray
from truthkit.text.encode import answer_lead, encode_rendered, has_template, written_prompts
from truthkit.text.tokens import batches, padded, text_tokenizer

_IMAGES_AT_A_TIME = 8
_TOKEN_TYPES = ("token_type_ids", "mm_token_type_ids")


@dataclass
class Read:
    """What was read of one answer of `n` tokens.

    Attributes:
        spans: where in the answer each token's text is.
        log_probs: of each token, natural logarithm, (n,).
        entropies: of the distribution that each was chosen from, nats, (n,).
        states: by layer the states of the token before the answer and of all of its tokens, (n + 1, features).
        lookback: for each layer and head the share of an answer's token's attention that looks back at the context,
            (n, layers, heads); see `truthkit.detection.lookback`.
        other_log_probs: of each token in the second view of a decoder, (n,).
        divergences: Jensen–Shannon divergence of the two views' distributions, nats, (n,).
    """

    spans: list[Span]
    log_probs: FloatArray = field(default_factory=lambda: _none())
    entropies: FloatArray = field(default_factory=lambda: _none())
    states: dict[int, FloatArray] = field(default_factory=dict)
    lookback: FloatArray | None = None
    other_log_probs: FloatArray = field(default_factory=lambda: _none())
    divergences: FloatArray = field(default_factory=lambda: _none())


@dataclass(frozen=True)
class _Row:
    """One prompt with its answer: the text, its tokens (images' placeholders once each), how many are the answer's, and
    where in the prompt the context is, as a half-open range of tokens from the row's end.
    """

    text: str
    ids: list[int]
    count: int
    spans: list[Span]
    context: tuple[int, int] | None = None


class Reader:
    """Reads answers with one model.

    Args:
        model: text or image-text model; PEFT wrappers stay on.
        processor: its tokenizer or processor.
        raw: prompts are texts to go on from, without a chat template.
        token_budget: how many tokens, padding included, run in one forward; of answers about images at most eight.
        max_new_tokens: of answers that are written.
        seed: of answers that are drawn.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        raw: bool = False,
        token_budget: int = 2048,
        max_new_tokens: int = 64,
        seed: int = 0,
    ):
        for name, value in (("token_budget", token_budget), ("max_new_tokens", max_new_tokens)):
            if value < 1:
                raise ArgumentError(f"{name} is {value}; expected at least 1.")
        self.model, self.processor, self.raw = model, processor, raw
        self.plain = plain_model(model)
        self.tokenizer = text_tokenizer(processor, "a detector")
        self._templated = not raw and has_template(processor)
        self.token_budget, self.max_new_tokens, self.seed = token_budget, max_new_tokens, seed

    @property
    def depth(self) -> int:
        """How many decoder blocks the model has."""
        return len(decoder_blocks(self.plain))

    def read(
        self,
        asked: Sequence[Asked],
        *,
        layers: Sequence[int] = (),
        lookback: bool = False,
        views: Callable[[Sequence[Asked]], Decoder] | None = None,
        may_be_empty: bool = False,
    ) -> list[Read]:
        """One forward over every prompt with its answer, in batches.

        Args:
            asked: the answers.
            layers: whose states are wanted.
            lookback: whether attention to the context is.
            views: makes a decoder for a batch, with whose second view the answers are read too.
            may_be_empty: answers of no tokens are read like others; else they are an error.

        Raises:
            ArgumentError: an empty answer; a context that the prompt does not have; or more tokens than there is room
                for.
            ModelError: attention is wanted, and cannot be read.
        """
        wanted = resolve_layers(layers, self.depth) if layers else ()
        if lookback:
            check_readable(text_decoder(language_half(self.plain)))
        rows = self._rows(asked, may_be_empty)
        check_room(self.plain, max((len(row.ids) for row in rows), default=0), "a prompt with its answer", "shorten it")
        found: list[Read | None] = [None] * len(asked)
        for some in self._batches(asked, rows):
            batch = [rows[i] for i in some]
            decoder = None if views is None else views([asked[i] for i in some])
            read = self._read_batch(batch, [asked[i].images for i in some], wanted, lookback, decoder)
            for i, one in zip(some, read, strict=True):
                found[i] = one
        return [one for one in found if one is not None]

    def write(self, asked: Sequence[Asked], *, count: int = 0, temperature: float = 1.0, top_p: float = 1.0) -> Any:
        """What the model says to each prompt: a text by greedy search, or with `count` so many that are drawn.

        Those of one prompt are drawn together and by themselves, from the seed: what stands beside it changes nothing.
        """
        said: list[Any] = []
        ends: dict[str, Any] = {"max_new_tokens": self.max_new_tokens, "num_beams": 1}
        for one in asked:
            written = written_prompts(self.processor, [one.prompt], [len(one.images)], raw=self.raw)
            inputs = self._inputs(written, [one.images])
            length = inputs["input_ids"].shape[1]
            check_room(self.plain, length + self.max_new_tokens, "a prompt with its new tokens", "ask for fewer")
            with torch.random.fork_rng([self.plain.device] if self.plain.device.type == "cuda" else []):
                torch.manual_seed(self.seed)
                if count:
                    drawn: dict[str, Any] = {"do_sample": True, "num_return_sequences": count, "top_k": 0}
                    drawn |= {"temperature": temperature, "top_p": top_p}
                else:
                    drawn = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
                ids = self.model.generate(**inputs, **ends, **drawn)[:, length:]
            texts = [self.tokenizer.decode(row, skip_special_tokens=True).strip() for row in ids]
            said.append(texts if count else texts[0])
        return said

    # -- rows ----------------------------------------------------------------------------------------------------------

    def _rows(self, asked: Sequence[Asked], may_be_empty: bool) -> list[_Row]:
        counts = [len(one.images) for one in asked]
        prompts = written_prompts(self.processor, [one.prompt for one in asked], counts, raw=self.raw)
        lead = answer_lead(self.processor, seeing=any(counts), raw=self.raw)
        texts = [
            prompt + ("" if not one.answer or one.answer[0].isspace() or prompt[-1].isspace() else lead) + one.answer
            for prompt, one in zip(prompts, asked, strict=True)
        ]
        begun, whole = self._ids(prompts), self._ids(texts)
        rows = []
        for number, (one, text, start, ids) in enumerate(zip(asked, texts, begun, whole, strict=True)):
            count = len(ids) - len(start)
            if count < 1 and not (may_be_empty and not one.answer):
                why = "is empty" if not one.answer else "has no token of its own behind its prompt"
                raise ArgumentError(f"answers[{number}] {why}; a score is of what was said.")
            context = None if one.context is None else self._context(number, one, prompts[number], len(ids))
            count = max(count, 0)
            rows.append(_Row(text, ids, count, self._spans(one.answer, ids[len(ids) - count :]), context))
        return rows

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokens of each text as `encode_rendered` has them, with one placeholder for each image."""
        if not texts:
            return []
        found = encode_rendered(self.processor, texts, [()] * len(texts), templated=self._templated)
        return [
            ids[kept].tolist() for ids, kept in zip(found["input_ids"], found["attention_mask"].bool(), strict=True)
        ]

    def _context(self, number: int, one: Asked, prompt: str, length: int) -> tuple[int, int]:
        """Where the context's tokens are, counted from the end of a row of `length` tokens."""
        assert one.context is not None
        at = prompt.find(one.context) if one.context.strip() else -1
        if at < 0:
            raise ArgumentError(
                f"contexts[{number}] is {one.context[:60]!r}, which does not stand in its prompt; pass a passage of it."
            )
        ends = [
            len(ids) for text in (prompt[:at], prompt[: at + len(one.context)]) if text for ids in self._ids([text])
        ]
        return length - (ends[0] if at else 0), length - ends[-1]

    def _spans(self, answer: str, ids: Sequence[int]) -> list[Span]:
        """The characters of an answer that each of its tokens brought."""
        pieces, texts = Pieces(self.tokenizer), []
        texts = [pieces(token) for token in ids]
        ahead = max("".join(texts).find(answer), 0)  # the space before the first word is no part of the answer
        ends, end = [], -ahead
        for text in texts:
            end += len(text)
            ends.append(min(max(end, 0), len(answer)))
        return [Span(start, stop) for start, stop in zip([0, *ends], ends, strict=False)]

    def _batches(self, asked: Sequence[Asked], rows: Sequence[_Row]) -> Iterator[list[int]]:
        """Numbers of rows, those with images apart from those without, longest first."""
        order = sorted(range(len(rows)), key=lambda i: len(rows[i].ids), reverse=True)
        seeing = [i for i in order if asked[i].images]
        for start in range(0, len(seeing), _IMAGES_AT_A_TIME):
            yield seeing[start : start + _IMAGES_AT_A_TIME]
        yield from batches([len(row.ids) for row in rows], self.token_budget, [i for i in order if not asked[i].images])

    def _inputs(self, texts: Sequence[str], images: Sequence[tuple[Any, ...]]) -> dict[str, torch.Tensor]:
        """Model inputs of texts, padded on the left."""
        found = encode_rendered(self.processor, texts, images, templated=self._templated)
        kept = found["attention_mask"].bool()
        for name in ("input_ids", *_TOKEN_TYPES):
            if name in found:
                found[name], mask = padded([row[real].tolist() for row, real in zip(found[name], kept, strict=True)])
        device, dtype = input_device(self.plain), self.plain.dtype
        moved = {**found, "attention_mask": mask}
        return {
            name: value.to(device, dtype if value.is_floating_point() else value.dtype)
            for name, value in moved.items()
            if isinstance(value, torch.Tensor)
        }

    # -- forwards ------------------------------------------------------------------------------------------------------

    def _read_batch(
        self,
        rows: Sequence[_Row],
        images: Sequence[tuple[Any, ...]],
        layers: Sequence[int],
        lookback: bool,
        decoder: Decoder | None,
    ) -> list[Read]:
        inputs = self._inputs([row.text for row in rows], images)
        mask = inputs["attention_mask"]
        keep = max(row.count for row in rows) + 1
        if not hasattr(self.plain.base_model, "get_rope_index"):  # who has it knows the places of image tokens better
            inputs["position_ids"] = (mask.cumsum(dim=1) - 1).clamp_min(0)
        states: dict[int, torch.Tensor] = {}
        seen: list[ViewLogits] = []
        owner = Block("a detector")
        with ExitStack() as stack, torch.no_grad():
            stack.enter_context(owner.open())
            for layer in layers:
                block = decoder_blocks(self.plain)[layer]
                stack.callback(hook_states(block, "block", partial(_keep, states, layer, keep), owner).remove)
            attention = _LookingBack(owner, rows, mask, keep - 1) if lookback else None
            if attention is not None:
                stack.enter_context(asking(text_decoder(language_half(self.plain)), attention))
            if decoder is not None:
                session = stack.enter_context(decoder)
                stack.enter_context(session.with_prompts([len(row.ids) - row.count for row in rows]))
                session.observers.append(lambda views, _combined: seen.extend(views))
            logits = self.model(**self._accepted(inputs), use_cache=False, logits_to_keep=keep).logits[:, -keep:]
        main = seen[0].logits[:, -keep:] if seen else logits
        other = seen[1].logits[:, -keep:] if seen else None
        ratios = None if attention is None else torch.stack([attention.ratios[at] for at in sorted(attention.ratios)])
        found = []
        for number, row in enumerate(rows):
            read = Read(row.spans, states={at: _array(own[number, -row.count - 1 :]) for at, own in states.items()})
            if row.count:
                _likelihoods(read, row, main[number], None if other is None else other[number])
                if ratios is not None:  # (layers, rows, heads, queries)
                    read.lookback = _array(ratios[:, number, :, -row.count :].permute(2, 0, 1))
            found.append(read)
        return found

    def _accepted(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        accepted = inspect.signature(self.plain.forward).parameters
        return {name: value for name, value in inputs.items() if name in accepted or "kwargs" in accepted}


class _LookingBack:
    """The ratio of attention to the context, for the last queries of each row, layer by layer.

    Source of the ratio: Y.-S. Chuang et al., *Lookback Lens*, arXiv 2407.07071, equation 1.

    Args:
        block: in whose threads.
        rows: what is read.
        mask: where tokens are, (rows, width).
        queries: how many last ones.

    Attributes:
        ratios: by layer, (rows, heads, queries).
    """

    def __init__(self, block: Block, rows: Sequence[_Row], mask: torch.Tensor, queries: int):
        self.block, self.queries = block, queries
        self.ratios: dict[int, torch.Tensor] = {}
        width = mask.shape[1]
        place = torch.arange(width, device=mask.device)[None]
        counts = torch.tensor([row.count for row in rows], device=mask.device)[:, None]
        answers = place >= width - counts
        starts, stops = (
            torch.tensor([width - row.context[end] if row.context else whole for row in rows], device=mask.device)
            for end, whole in ((0, 0), (1, width))
        )
        inside = (place >= starts[:, None]) & (place < stops[:, None])
        self._context, self._answers = mask.bool() & ~answers & inside, answers

    def asked(self, layer: int, queries: int, keys: int) -> list[AskedOfAttention]:
        """See `truthkit.hf.attention.Asking`."""

        def keep(weights: torch.Tensor, rows: slice) -> None:
            ratio = self._ratio(weights.float() if weights.dtype != torch.float64 else weights, rows, keys)
            before = self.ratios.get(layer)
            self.ratios[layer] = ratio if before is None or not rows.start else torch.cat([before, ratio])

        return [AskedOfAttention(slice(None), slice(queries - self.queries, None), shown=keep)]

    def _ratio(self, weights: torch.Tensor, rows: slice, keys: int) -> torch.Tensor:
        """Of weights (rows, heads, queries, keys): mean on the context over that and the mean on the new tokens."""
        context, answers = (some[rows, -keys:].to(weights) for some in (self._context, self._answers))
        count = weights.shape[2]
        new = answers[:, None].expand(-1, count, -1).tril(keys - count)  # what each query can see of the answer
        looked = torch.einsum("rhqk,rk->rhq", weights, context) / context.sum(dim=1).clamp_min(1)[:, None, None]
        own = (weights * new[:, None]).sum(dim=-1) / new.sum(dim=-1).clamp_min(1)[:, None]
        total = looked + own
        return torch.where(total > 0, looked / total.clamp_min(torch.finfo(total.dtype).tiny), 0.5)


def _keep(states: dict[int, torch.Tensor], layer: int, keep: int, hidden: torch.Tensor) -> None:
    states[layer] = hidden[:, -keep:].detach()


def _likelihoods(read: Read, row: _Row, main: torch.Tensor, other: torch.Tensor | None) -> None:
    """Fill in what the logits (kept, vocabulary) of one row say of its answer."""
    targets = torch.tensor(row.ids[-row.count :], device=main.device)[:, None]
    log_probs = _log_softmax(main[-row.count - 1 : -1])
    read.log_probs = _array(log_probs.gather(1, targets)[:, 0])
    read.entropies = _array(torch.special.entr(log_probs.exp()).sum(dim=1))
    if other is not None:
        others = _log_softmax(other[-row.count - 1 : -1])
        read.other_log_probs = _array(others.gather(1, targets)[:, 0])
        mean = torch.logaddexp(log_probs, others) - torch.log(torch.tensor(2.0, dtype=others.dtype))
        own, its = (torch.where(one > -torch.inf, one.exp() * (one - mean), 0.0) for one in (log_probs, others))
        read.divergences = _array((own + its).sum(dim=1).div(2).clamp_min(0.0))


def _log_softmax(logits: torch.Tensor) -> torch.Tensor:
    return (logits if logits.dtype == torch.float64 else logits.float()).log_softmax(dim=-1)


def _array(values: torch.Tensor) -> FloatArray:
    return values.detach().double().cpu().numpy()


def _none() -> FloatArray:
    return _array(torch.zeros(0))
