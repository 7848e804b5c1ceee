"""Methods that are a search of their own, in the place of `generate`'s loop."""

from __future__ import annotations

import functools
import inspect
from abc import abstractmethod
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Self

from transformers import StoppingCriteriaList, StopStringCriteria

from truthkit.decoding.engine.method import DecodingMethod
from truthkit.errors import ArgumentError
from truthkit.hf.ownership import Block
from truthkit.hf.wrapping import language_half, plain_model, replaced_method, sole_owner


class SearchMethod(DecodingMethod):
    """Every `generate` of a model inside of the `with` block is this search.

    Args:
        model: a causal or image-text model; PEFT and `torch.compile` wrappers are fine.
        processor: its tokenizer or processor, for `stop_strings`; `tokenizer=` in the call comes first.

    Raises:
        AttachError: on entry, if another decoder is attached to the model.
    """

    def __init__(self, model: Any, processor: Any = None):
        self.model = language_half(plain_model(model))
        self._tokenizer = getattr(processor, "tokenizer", processor)

    @abstractmethod
    def _search(self, call: dict[str, Any], options: dict[str, Any]) -> Callable[..., Any]:
        """What `generate` runs as `custom_generate`.

        Args:
            call: the named arguments of the call, without those that transformers refuses beside it.
            options: its further ones; what the search takes from both is taken out.
        """

    def __enter__(self) -> Self:
        block = Block(type(self).__name__)
        with ExitStack() as stack:
            stack.enter_context(sole_owner(self.model, block.name))
            stack.enter_context(block.open())
            generate = functools.partial(self._generate, block)
            stack.enter_context(replaced_method(self.model, "generate", generate, block))
            vars(self)["_attached"] = block, stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        block, attached = vars(self).pop("_attached")
        caller = block.leave()
        attached.close()
        block.refuse_left(caller, exception)

    def _generate(self, block: Block, original: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(original)

        @functools.wraps(original)
        def generate(*args: Any, **kwargs: Any) -> Any:
            call = signature.bind(*args, **kwargs).arguments
            options = call.pop("kwargs", {})
            for name in ("custom_generate", "assistant_model"):
                if call.pop(name, None) is not None:
                    raise ArgumentError(f"{name} was passed inside a {block.name} block; use one of the two.")
            search = self._search(call, options)
            self._resolve_stop_strings(block.name, call, options)
            with block.calling():
                return original(**call, **options, custom_generate=search)

        return generate

    def _resolve_stop_strings(self, name: str, call: dict[str, Any], options: dict[str, Any]) -> None:
        """Replace `stop_strings`, of the call or a generation config, by the criterion `generate` would make of it."""
        tokenizer = options.pop("tokenizer", None) or self._tokenizer
        config = call.get("generation_config") or self.model.generation_config
        strings = options.pop("stop_strings", None) or config.stop_strings
        if strings is None:
            return
        if tokenizer is None:
            raise ArgumentError(
                f"stop_strings needs the model's tokenizer; pass it as {name}(model, tokenizer), or as tokenizer= in "
                "the call."
            )
        if config.stop_strings is not None:
            options["stop_strings"] = None
        criterion = StopStringCriteria(tokenizer=tokenizer, stop_strings=strings)
        call["stopping_criteria"] = StoppingCriteriaList([*(call.get("stopping_criteria") or []), criterion])
