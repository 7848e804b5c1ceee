"""Which tokens each forward holds, whoever calls it: `generate` in any mode, a decoder, or user code.

A hook on the text decoder sees the rows that really run, so the views of a decoder are counted too; a hook on the model
sees the rows as the caller has them. Image-text models hand their text decoder embeddings and finished masks, so a hook
on the module between the two notes the token ids and the padding. From all this every row is traced to the item of the
batch that it belongs to: rows are view-major (all rows of the first view, then all of the second), and within a view
the beams or samples of an item lie side by side.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch

from truthkit.activations.other_texts import OtherTexts, Text
from truthkit.activations.positions import Tokens
from truthkit.errors import ArgumentError
from truthkit.hf.ownership import Block
from truthkit.hf.sites import image_token
from truthkit.hf.step_parts import Arguments
from truthkit.hf.wrapping import keep_mask_flat, refuse_continuous_batching, refuse_guidance, replaced_method

_ENDLESS = 1 << 62
"""More tokens than any text has."""


class Tracker:
    """Follows the texts that pass through `model` while attached.

    Args:
        model: the plain `PreTrainedModel`.
        processor: for positions that look at characters.
        observer: called at the start of every forward of the decoder, once `tokens` is known.

    Attributes:
        shape: rows and width of the current forward.
        after_prompt: all tokens of this forward come after the prompt, as in a decoding step.
        stepping: what the hooks do was done before this forward (`step`), which is compiled.
        memory: what is to be kept with the text of the current forward, from its first forward on.
        prompt_lengths: for forwards outside `generate`: how many of each text's tokens are prompt. None means all.
        part: for forwards outside `generate` whose tokens are all of a "prompt", or all of an "answer", whatever was
            read before. None: the beginning of a text says where its prompt ends.
    """

    def __init__(self, model: Any, processor: Any = None, observer: Callable[[], None] | None = None):
        self.model, self.processor, self.observer = model, processor, observer
        self._image_token = image_token(model)
        self.prompt_lengths: Sequence[int] | None = None
        self.part: Literal["prompt", "answer"] | None = None
        self.after_prompt = self.stepping = False
        self.shape = (0, 0)
        self.memory: dict[Any, Any] = {}
        self._make: Callable[[], Tokens]
        self._tokens: Tokens | None = None
        self._counted: tuple[int, int, int, Any] = (0, 0, 0, None)
        self._item: torch.Tensor | None = None
        self._block: Block
        self._generating = False
        self._asked: tuple[int, int] | None = None
        self._narrow: list[dict[str, Any]] = []
        self._between: dict[str, Any] = {}
        self._prompts_given: torch.Tensor | None = None
        self._mask_given: torch.Tensor | None = None
        self._prepared: torch.Tensor | None = None
        self._main_rows = 0
        self._main = Text()
        self._forget_others()

    def attach(self, stack: ExitStack, block: Block) -> None:
        """Put the hooks on, for the threads of `block`; `stack` takes them off."""
        model, self._block = self.model, block
        outside, note, inside = map(self._hook, (self._outside, self._note, self._inside))
        stack.callback(model.register_forward_pre_hook(outside, with_kwargs=True, prepend=True).remove)
        if (base := model.base_model) is not model and base is not model.get_decoder():
            stack.callback(base.register_forward_pre_hook(note, with_kwargs=True).remove)
        stack.callback(model.get_decoder().register_forward_pre_hook(inside, with_kwargs=True).remove)
        stack.enter_context(replaced_method(model, "generate", self._follow_generate, block))
        stack.enter_context(replaced_method(model, "generate_batch", refuse_continuous_batching, block))
        stack.enter_context(replaced_method(model, "prepare_inputs_for_generation", self._noting_inputs, block))

    def _hook(self, act: Callable[..., None]) -> Callable[..., None]:
        def hook(*args: Any) -> None:
            if not self.stepping:
                act(*args)

        return self._block.only_here(hook)

    @property
    def tokens(self) -> Tokens:
        """The tokens of the current forward."""
        if self._tokens is None:
            self._tokens = self._make()
        return self._tokens

    @property
    def item(self) -> torch.Tensor:
        """For each row of the forward the item of the caller's batch; (rows,), int64; one tensor while rows stay."""
        if self._item is None:
            items, narrow, rows, device = self._counted
            self._item = torch.arange(rows, device=device) % narrow // (narrow // items)
        return self._item

    @property
    def caller_row(self) -> torch.Tensor:
        """For each row of the forward the row that it is to the caller, whatever the view; (rows,), int64."""
        _, narrow, rows, device = self._counted
        return torch.arange(rows, device=device) % narrow

    @property
    def views(self) -> int:
        """How many rows of the forward there are for one of the caller's."""
        return self._counted[2] // self._counted[1]

    @property
    def items(self) -> int:
        """How many items the caller's batch has."""
        return self._counted[0]

    def _forget_others(self) -> None:
        """Forget all texts but the one that is generated."""
        self._prepared, self._narrow, self._others = None, [], OtherTexts()

    def _noting_inputs(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """A `prepare_inputs_for_generation` that leaves the mask 2-D, and notes what `generate`'s own forwards read."""
        flat = keep_mask_flat(original)

        @functools.wraps(original)
        def prepare(*args: Any, **kwargs: Any) -> Any:
            inputs = flat(*args, **kwargs)
            ids = inputs.get("input_ids")
            self._prepared = ids if ids is not None else inputs.get("inputs_embeds")
            return inputs

        return prepare

    def _follow_generate(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def generate(*args: Any, **kwargs: Any) -> Any:
            with self._block.calling():
                if self._generating:  # an assistant of the model's own early layers drafts on the same text
                    return original(*args, **kwargs)
                refuse_guidance(self.model, self._block.name, kwargs)
                given = args[0] if args else kwargs.get("inputs", kwargs.get("input_ids"))
                given = given if given is not None else kwargs.get("inputs_embeds")
                self._asked = (given.shape[0], given.shape[1]) if isinstance(given, torch.Tensor) else None
                self._prompts_given = given if isinstance(given, torch.Tensor) and given.dim() == 2 else None
                mask = kwargs.get("attention_mask")
                self._mask_given = mask if isinstance(mask, torch.Tensor) and mask.dim() == 2 else None
                self._generating, self._main = True, Text()
                self._forget_others()
                try:
                    return original(*args, **kwargs)
                finally:
                    self._generating, self._asked, self._prompts_given, self._mask_given = False, None, None, None
                    self._forget_others()

        return generate

    @torch.compiler.disable
    def _outside(self, _module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._block.check()
        ids = args[0] if args else kwargs.get("input_ids")
        given = ids if ids is not None else kwargs.get("inputs_embeds")
        if given is None:
            return
        other = self._generating and self._prepared is not None and given is not self._prepared
        if not other:
            self._narrow, self._main_rows = [], given.shape[0]
        narrow = {"rows": given.shape[0], "width": given.shape[1], "ids": ids, "other": other}
        self._narrow.append(narrow | {"mask": kwargs.get("attention_mask")})

    @torch.compiler.disable
    def _note(self, _module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._between = {"ids": args[0] if args else kwargs.get("input_ids"), "mask": kwargs.get("attention_mask")}

    @torch.compiler.disable
    def _inside(self, _module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        narrow = self._narrow.pop() if self._narrow else {}
        between, self._between = self._between, {}
        ids = args[0] if args else kwargs.get("input_ids")
        given = ids if ids is not None else kwargs["inputs_embeds"]
        rows, width = given.shape[:2]
        cache = kwargs.get("cache", kwargs.get("past_key_values"))
        narrow = narrow or {"rows": rows, "width": width, "ids": ids, "mask": kwargs.get("attention_mask")}
        other = self._others.of(cache, ids if ids is not None else between.get("ids")) if narrow.get("other") else None
        text, own = other or self._main, other is None
        past = self._past(cache, text)
        if (mask := _flat(kwargs.get("attention_mask"), rows)) is None:
            mask = _flat(between.get("mask"), rows)
        if self._generating:
            first, text.began = not text.began, True
        else:
            first = past == 0 or self.part is not None
        self._count_rows(narrow["rows"] if own else self._main_rows, rows, given.device)
        if ids is None:
            known = first and own and self._prompts_given is not None
            prompts = self._prompts_given[self.item.cpu()] if known else None  # type: ignore[index]
            ids = next((one for one in (between.get("ids"), prompts) if _has_shape(one, rows, width)), None)
        if first:
            text.start = self._begin(narrow, rows, width, given.device, mask, ids, own=own)
        given_mask, positions = kwargs.get("attention_mask"), kwargs.get("position_ids")
        self._go_on(text, past, rows, width, lambda: (mask, given_mask, positions, ids))

    @property
    def has_read(self) -> bool:
        """Whether `generate` has read the whole prompt."""
        return self._main.began and self._main.columns >= self._main.start["width"]

    @contextmanager
    def step(self, inputs: Arguments, rows: int, wide: Callable[[], Arguments]) -> Iterator[None]:
        """See `truthkit.hf.step_parts.Part`."""
        self._block.check()

        def arguments() -> tuple[Any, Any, Any, Any]:
            made = wide()
            mask = made.get("attention_mask")
            return _flat(mask, rows), mask, made.get("position_ids"), made["input_ids"]

        past, ids = self._main.columns, inputs["input_ids"]
        self._count_rows(len(ids), rows, ids.device)
        self._go_on(self._main, past, rows, 1, arguments)
        self.stepping = True
        try:
            yield
        except BaseException:
            self._main.columns = past
            raise
        finally:
            self.stepping = False

    def _go_on(
        self, text: Text, past: int, rows: int, width: int, arguments: Callable[[], tuple[Any, Any, Any, Any]]
    ) -> None:
        """To a forward of `width` tokens; `arguments` gives its mask, flat and as it is, its positions and its ids."""
        text.columns, self.shape, start = past + width, (rows, width), text.start
        self.memory = start["memory"]
        self.after_prompt = past >= start["width"]
        if self.part is not None and not self._generating:
            self.after_prompt = self.part == "answer"
        texts = start.pop("text", None)

        def make() -> Tokens:
            mask, given_mask, positions, ids = arguments()
            real, number = self._numbers(start, mask, positions, past, rows, width, self._counted[3])
            seen = mask if mask is not None else _visible(given_mask, rows)
            prompt, given = self._counts(start, seen, rows)
            if self.part is not None and not self._generating:
                prompt = torch.full_like(prompt, -_ENDLESS if self.after_prompt else _ENDLESS)
            return Tokens(number, real, prompt, given, ids, texts, self.processor, self._image_token, start["memory"])

        self._tokens, self._make = None, make
        if self.observer is not None:
            self.observer()

    def _counts(self, start: dict[str, Any], mask: torch.Tensor | None, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
        """How many of each row's tokens are prompt, and how many were given; (rows, 1) each.

        Where rows have come since the text began, their masks tell: those of short views lie behind the others.
        """
        prompt, given = start["prompt"], start["given"]
        if rows == len(given):
            return prompt, given
        if mask is not None and self._generating:
            start["prompt"] = start["given"] = given = _given(mask, start["width"])
            return given, given
        repeats = rows // len(given)
        return prompt.repeat_interleave(repeats, dim=0), given.repeat_interleave(repeats, dim=0)

    def _numbers(
        self,
        start: dict[str, Any],
        mask: torch.Tensor | None,
        positions: Any,
        past: int,
        rows: int,
        width: int,
        device: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Which of the last `width` columns are real, and the number of each among its row's real tokens."""
        placed = isinstance(positions, torch.Tensor) and positions.dim() == 2
        if mask is not None:
            number = mask.long().cumsum(dim=1)[:, -width:] - 1
            if placed and "position" not in start:
                start["position"] = positions[:, -1:] - number[:, -1:]
            return mask[:, -width:].bool(), number
        real = torch.ones(rows, width, dtype=torch.bool, device=device)
        if not placed:
            padding = start["width"] - start["given"]
            padding = padding.repeat_interleave(rows // len(padding), dim=0)
            return real, torch.arange(past, past + width, device=device) - padding
        # Several candidates for one place share a position. PaliGemma counts positions from 1.
        first = start.setdefault("position", positions[:1, :1] - past)
        if 1 < len(first) < rows:
            first = first.repeat_interleave(rows // len(first), dim=0)
        return real, (positions - first).expand(rows, -1)

    def _past(self, cache: Any, text: Text) -> int:
        """How many columns the cache holds; counted here where it has no count (Mamba) or a tensor (static)."""
        if cache is None:
            return 0
        layers = getattr(cache, "layers", ())
        if layers and not any(hasattr(layer, "get_seq_length") for layer in layers):
            return text.columns if cache.has_previous_state() else 0
        if getattr(cache, "is_compileable", False) and self._generating:
            return text.columns if text.began else int(cache.get_seq_length())
        return int(cache.get_seq_length())

    def _begin(
        self,
        narrow: dict[str, Any],
        rows: int,
        width: int,
        device: Any,
        mask: torch.Tensor | None,
        ids: torch.Tensor | None,
        *,
        own: bool,
    ) -> dict[str, Any]:
        """What holds for a whole text: where its prompt ends, and how long it is without padding."""
        extra = width - narrow["width"]
        prompt_width = (self._asked[1] if self._asked and own else narrow["width"]) + extra
        if mask is not None and mask.shape[1] < prompt_width and own and self._mask_given is not None:
            whole = self._mask_given  # the first chunk of a prefill has but the beginning, which may be all padding
            mask = whole.to(device)[self.item] if whole.shape[1] == prompt_width else mask
        given = torch.full((rows, 1), prompt_width, device=device) if mask is None else _given(mask, prompt_width)
        prompt = given
        if self.prompt_lengths is not None and not self._generating:
            prompt = self._prompts(narrow, rows, given)
        texts = self.processor is not None and ids is not None
        text = self._texts(ids, mask, prompt_width, own=own) if texts else None  # type: ignore[arg-type]
        return {"width": prompt_width, "prompt": prompt, "given": given, "memory": {}, "text": text}

    def _texts(self, ids: torch.Tensor, mask: torch.Tensor | None, prompt_width: int, *, own: bool) -> list[list[int]]:
        """The texts without padding; all of the prompts, of which a chunked prefill shows but the beginning."""
        prompts = self._prompts_given if own else None
        if prompts is not None and ids.shape[1] < prompt_width == prompts.shape[1]:
            ids = prompts.to(ids.device)[self.item]
        if mask is None:
            return ids.tolist()
        known = mask[:, : ids.shape[1]].bool()
        kept = torch.nn.functional.pad(known, (0, ids.shape[1] - known.shape[1]), value=True)
        return [row[real].tolist() for row, real in zip(ids, kept, strict=True)]

    def _prompts(self, narrow: dict[str, Any], rows: int, given: torch.Tensor) -> torch.Tensor:
        lengths = self.prompt_lengths
        assert lengths is not None
        if len(lengths) != narrow["rows"]:
            raise ArgumentError(f"prompt_lengths has {len(lengths)} entries for a batch of {narrow['rows']} rows.")
        mask = _flat(narrow["mask"], narrow["rows"])
        whole = torch.full((narrow["rows"],), narrow["width"]) if mask is None else mask.sum(dim=1).cpu()
        answer = (whole - torch.tensor(lengths)).clamp_min(0).to(given.device)
        return given - answer.repeat(rows // narrow["rows"])[:, None]

    def _count_rows(self, narrow: int, rows: int, device: Any) -> None:
        narrow = narrow if narrow and rows % narrow == 0 else rows
        items = self._asked[0] if self._asked and narrow % self._asked[0] == 0 else narrow
        if (counted := (items, narrow, rows, device)) != self._counted:
            self._counted, self._item = counted, None


def _has_shape(ids: Any, rows: int, width: int) -> bool:
    return isinstance(ids, torch.Tensor) and ids.shape == (rows, width)


def _flat(mask: Any, rows: int) -> torch.Tensor | None:
    return mask if isinstance(mask, torch.Tensor) and mask.dim() == 2 and len(mask) == rows else None


def _visible(mask: Any, rows: int) -> torch.Tensor | None:
    """Which columns a decoding step sees, (rows, columns), from the mask that attention layers add."""
    mask = mask.get("full_attention") if isinstance(mask, dict) else mask
    fits = isinstance(mask, torch.Tensor) and mask.dim() == 4 and len(mask) == rows and mask.shape[2] == 1
    return mask[:, 0, 0] == 0 if fits else None


def _given(mask: torch.Tensor, width: int) -> torch.Tensor:
    """How many tokens the prompts of `width` columns have, (rows, 1); a shorter mask says nothing of the rest."""
    known = mask[:, :width]
    return known.sum(dim=1, keepdim=True) + max(width - known.shape[1], 0)
