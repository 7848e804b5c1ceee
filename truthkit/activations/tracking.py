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

from truthkit.activations.positions import Tokens
from truthkit.errors import ArgumentError
from truthkit.hf.ownership import Block
from truthkit.hf.sites import image_token
from truthkit.hf.step_parts import Arguments
from truthkit.hf.wrapping import keep_mask_flat, refuse_continuous_batching, replaced_method

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
        self._make: Callable[[], Tokens]
        self._tokens: Tokens | None = None
        self._rows: tuple[int, int, int, Any] = (0, 0, 0, None)
        self._item: torch.Tensor | None = None
        self._block: Block
        self._generating = self._began = False
        self._asked: tuple[int, int] | None = None
        self._narrow: dict[str, Any] = {}
        self._between: dict[str, Any] = {}
        self._prompts_given: torch.Tensor | None = None
        self._start: dict[str, Any] = {}
        self._columns = 0

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
        stack.enter_context(replaced_method(model, "prepare_inputs_for_generation", keep_mask_flat, block))

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
            items, narrow, rows, device = self._rows
            self._item = torch.arange(rows, device=device) % narrow // (narrow // items)
        return self._item

    @property
    def items(self) -> int:
        """How many items the caller's batch has."""
        return self._rows[0]

    def _follow_generate(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def generate(*args: Any, **kwargs: Any) -> Any:
            with self._block.calling():
                if self._generating:  # an assistant of the model's own early layers drafts on the same text
                    return original(*args, **kwargs)
                given = args[0] if args else kwargs.get("inputs", kwargs.get("input_ids"))
                given = given if given is not None else kwargs.get("inputs_embeds")
                self._asked = (given.shape[0], given.shape[1]) if isinstance(given, torch.Tensor) else None
                self._prompts_given = given if isinstance(given, torch.Tensor) and given.dim() == 2 else None
                self._generating, self._began = True, False
                try:
                    return original(*args, **kwargs)
                finally:
                    self._generating, self._asked, self._prompts_given = False, None, None

        return generate

    @torch.compiler.disable
    def _outside(self, _module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._block.check()
        ids = args[0] if args else kwargs.get("input_ids")
        given = ids if ids is not None else kwargs.get("inputs_embeds")
        if given is not None:
            self._narrow = {"rows": given.shape[0], "width": given.shape[1], "ids": ids}
            self._narrow["mask"] = kwargs.get("attention_mask")

    @torch.compiler.disable
    def _note(self, _module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._between = {"ids": args[0] if args else kwargs.get("input_ids"), "mask": kwargs.get("attention_mask")}

    @torch.compiler.disable
    def _inside(self, _module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        narrow, self._narrow = self._narrow, {}
        between, self._between = self._between, {}
        ids = args[0] if args else kwargs.get("input_ids")
        given = ids if ids is not None else kwargs["inputs_embeds"]
        rows, width = given.shape[:2]
        cache = kwargs.get("cache", kwargs.get("past_key_values"))
        narrow = narrow or {"rows": rows, "width": width, "ids": ids, "mask": kwargs.get("attention_mask")}
        past = self._past(cache)
        if (mask := _flat(kwargs.get("attention_mask"), rows)) is None:
            mask = _flat(between.get("mask"), rows)
        if self._generating:
            first, self._began = not self._began, True
        else:
            first = past == 0 or self.part is not None
        self._count_rows(narrow["rows"], rows, given.device)
        if ids is None:
            prompts = self._prompts_given[self.item.cpu()] if first and self._prompts_given is not None else None
            ids = next((one for one in (between.get("ids"), prompts) if _has_shape(one, rows, width)), None)
        if first:
            self._begin(narrow, rows, width, given.device, mask, ids)
        self._go_on(past, rows, width, lambda: (mask, kwargs.get("position_ids"), ids))

    @property
    def has_read(self) -> bool:
        """Whether `generate` has read the whole prompt."""
        return self._began and self._columns >= self._start["width"]

    @contextmanager
    def step(self, inputs: Arguments, rows: int, wide: Callable[[], Arguments]) -> Iterator[None]:
        """See `truthkit.hf.step_parts.Part`."""
        self._block.check()

        def arguments() -> tuple[Any, Any, Any]:
            made = wide()
            return _flat(made.get("attention_mask"), rows), made.get("position_ids"), made["input_ids"]

        past, ids = self._columns, inputs["input_ids"]
        self._count_rows(len(ids), rows, ids.device)
        self._go_on(past, rows, 1, arguments)
        self.stepping = True
        try:
            yield
        except BaseException:
            self._columns = past
            raise
        finally:
            self.stepping = False

    def _go_on(self, past: int, rows: int, width: int, arguments: Callable[[], tuple[Any, Any, Any]]) -> None:
        """To a forward of `width` tokens, whose mask, positions and ids `arguments` gives."""
        self._columns, self.shape = past + width, (rows, width)
        self.after_prompt = past >= self._start["width"]
        if self.part is not None and not self._generating:
            self.after_prompt = self.part == "answer"
        text = self._start.pop("text", None)

        def make() -> Tokens:
            mask, positions, ids = arguments()
            start, device = self._start, self._rows[3]
            real, number = self._numbers(mask, positions, past, rows, width, device)
            repeats = rows // len(start["given"])
            prompt, given = (
                start[name].repeat_interleave(repeats, dim=0) if repeats > 1 else start[name]
                for name in ("prompt", "given")
            )
            if self.part is not None and not self._generating:
                prompt = torch.full_like(prompt, -_ENDLESS if self.after_prompt else _ENDLESS)
            return Tokens(number, real, prompt, given, ids, text, self.processor, self._image_token, start["memory"])

        self._tokens, self._make = None, make
        if self.observer is not None:
            self.observer()

    def _numbers(
        self, mask: torch.Tensor | None, positions: Any, past: int, rows: int, width: int, device: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Which of the last `width` columns are real, and the number of each among its row's real tokens."""
        placed = isinstance(positions, torch.Tensor) and positions.dim() == 2
        if mask is not None:
            number = mask.long().cumsum(dim=1)[:, -width:] - 1
            if placed and "position" not in self._start:
                self._start["position"] = positions[:, -1:] - number[:, -1:]
            return mask[:, -width:].bool(), number
        real = torch.ones(rows, width, dtype=torch.bool, device=device)
        if not placed:
            padding = self._start["width"] - self._start["given"]
            padding = padding.repeat_interleave(rows // len(padding), dim=0)
            return real, torch.arange(past, past + width, device=device) - padding
        # Several candidates for one place share a position. PaliGemma counts positions from 1.
        first = self._start.setdefault("position", positions[:1, :1] - past)
        if 1 < len(first) < rows:
            first = first.repeat_interleave(rows // len(first), dim=0)
        return real, (positions - first).expand(rows, -1)

    def _past(self, cache: Any) -> int:
        """How many columns the cache holds; counted here where it has no count (Mamba) or a tensor (static)."""
        if cache is None:
            return 0
        layers = getattr(cache, "layers", ())
        if layers and not any(hasattr(layer, "get_seq_length") for layer in layers):
            return self._columns if cache.has_previous_state() else 0
        if getattr(cache, "is_compileable", False) and self._generating:
            return self._columns if self._began else int(cache.get_seq_length())
        return int(cache.get_seq_length())

    def _begin(
        self,
        narrow: dict[str, Any],
        rows: int,
        width: int,
        device: Any,
        mask: torch.Tensor | None,
        ids: torch.Tensor | None,
    ) -> None:
        """Note what holds for a whole text: where its prompt ends, and how long it is without padding."""
        extra = width - narrow["width"]
        prompt_width = (self._asked[1] if self._asked else narrow["width"]) + extra
        if mask is None:
            given = torch.full((rows, 1), prompt_width, device=device)
        else:
            known = mask[:, :prompt_width]
            given = known.sum(dim=1, keepdim=True) + max(prompt_width - known.shape[1], 0)
        prompt = given
        if self.prompt_lengths is not None and not self._generating:
            prompt = self._prompts(narrow, rows, given)
        text = self._texts(ids, mask, prompt_width) if self.processor is not None and ids is not None else None
        self._start = {"width": prompt_width, "prompt": prompt, "given": given, "memory": {}, "text": text}

    def _texts(self, ids: torch.Tensor, mask: torch.Tensor | None, prompt_width: int) -> list[list[int]]:
        """The texts without padding; all of the prompts, of which a chunked prefill shows but the beginning."""
        prompts = self._prompts_given
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
        items = self._asked[0] if self._asked and narrow % self._asked[0] == 0 else narrow
        if (counted := (items, narrow, rows, device)) != self._rows:
            self._rows, self._item = counted, None


def _has_shape(ids: Any, rows: int, width: int) -> bool:
    return isinstance(ids, torch.Tensor) and ids.shape == (rows, width)


def _flat(mask: Any, rows: int) -> torch.Tensor | None:
    return mask if isinstance(mask, torch.Tensor) and mask.dim() == 2 and len(mask) == rows else None
