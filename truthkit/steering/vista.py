"""VISTA, visual information steering with token-logit augmentation (Li et al., arXiv 2502.03628)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any, ClassVar, Self

import torch

from truthkit.activations.capture import Capture
from truthkit.decoding.engine.arithmetic import check_finite
from truthkit.decoding.engine.controls import Control
from truthkit.decoding.engine.generate_calls import given_ids
from truthkit.decoding.engine.image_inputs import TOKEN_TYPES, has_pixels, take_image_inputs, token_types
from truthkit.decoding.engine.options import Beta, Layers
from truthkit.decoding.engine.processor import DecoderLogitsProcessor
from truthkit.decoding.engine.prompt_views import PromptRewrite, without_images
from truthkit.decoding.engine.session import Session
from truthkit.decoding.engine.written import spec_text
from truthkit.decoding.methods.exits_mean import ExitsMean
from truthkit.errors import ArgumentError
from truthkit.hf.sites import input_device
from truthkit.hf.wrapping import plain_model, replaced_method
from truthkit.steering.steer import Steering
from truthkit.text.tokens import padded


class VISTA(ExitsMean):
    """Move what MLPs put out towards what the images add to the prompt, and mix early exits into the logits.

        x ← ‖x‖ · norm(x/‖x‖ + strength · (1 + max(0, cos(x, −v))) · v̂)     after every MLP, at every token
        s = (1 − share) · l + share · mean of early exits,   then the plausibility constraint

    Source: the authors' released code for the steering, our notes on the paper for the exits. A recipe over `Steering`
    with `mode="opposed", keep_norm=True, site="mlp"`, and `ExitsMean`. The directions `v` are found anew in each call
    of `generate`, from one forward over its prompts and one over the same without their images.

    Args:
        model: an image-text model, or a text model with directions of one's own; PEFT wrappers are looked through.
        processor: its processor or tokenizer, for marks around images that the model's config doesn't know.
        vectors: for each layer the direction (features,), or one per prompt (prompts, features), as `vista_vectors`
            finds them, for all calls. None: found in each call.
        strength: 0.17 was published for CHAIR, 0.01 for POPE.
        share: of the early exits' mean, in [0, 1]; 0 reads none.
        layers: early exits, as in `ExitsMean`.
        norm: pass early exits through the model's final norm.
        beta: plausibility cut-off in (0, 1]; 0 turns it off.

    Raises:
        ArgumentError: vectors that do not fit, or an option out of range; in a call, prompts without images, or a
            forward outside of `generate`.
        ModelError: a text-only model without vectors, or one whose early exits cannot be read.

    Example:
        >>> with tk.VISTA(model, processor):
        ...     model.generate(**inputs, max_new_tokens=64)
    """

    name: ClassVar[str] = "vista"
    sees_images: ClassVar[bool] = True
    steers = True

    def __init__(
        self,
        model: Any,
        processor: Any = None,
        *,
        vectors: Mapping[int, torch.Tensor] | None = None,
        strength: float = 0.17,
        share: float = 0.3,
        layers: Layers | None = None,
        norm: bool = True,
        beta: Beta = 0.0,
    ):
        super().__init__(model, layers=layers, share=share, norm=norm, beta=beta)
        self.strength, self.of_whole_prompt = check_finite("strength", strength), vectors is None
        self._vectors, self._without = vectors, without_images(self.front, processor) if vectors is None else None
        if vectors is not None:
            self.towards(vectors)

    def towards(self, vectors: Mapping[int, torch.Tensor]) -> Steering:
        """The steering by these directions.

        Raises:
            ArgumentError: they do not fit.
        """
        return Steering(self.front, vectors, strength=self.strength, mode="opposed", site="mlp", keep_norm=True)

    def beside(self, session: Session) -> Sequence[AbstractContextManager[Any]]:
        if self._without is None:
            assert self._vectors is not None
            return [self.towards(self._vectors)]
        return [_InEachCall(self, self._without, session)]

    @classmethod
    def controls(cls, **options: Any) -> tuple[Control, ...]:
        """Beside the usual ones, the exits without the steering."""
        kept = {key: value for key, value in options.items() if key not in ("strength", "vectors")}
        return (*super().controls(**options), Control("exits-alone", spec_text("exits_mean", kept)))


class VISTALogitsProcessor(DecoderLogitsProcessor, decoder=VISTA):
    """Refused with the reason: the forward whose states `VISTA` moves is over when a logits processor is called."""


class _InEachCall:
    """Steering by what the images of a call of `generate` add to its prompts, for the length of this call."""

    def __init__(self, vista: VISTA, without: PromptRewrite, session: Session):
        self._vista, self._without, self._session = vista, without, session
        self._stack = ExitStack()
        self._generating = False

    def __enter__(self) -> Self:
        front, block = self._vista.front, self._session.block
        with ExitStack() as stack:
            stack.enter_context(replaced_method(front, "generate", self._steered, block))
            stack.callback(front.register_forward_pre_hook(block.only_here(self._refuse)).remove)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def _refuse(self, *_: Any) -> None:
        if not self._generating:
            raise ArgumentError(
                "VISTA finds its directions in generate, and this is a forward outside of it; pass vectors= of "
                "tk.vista_vectors."
            )

    def _steered(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def generate(*args: Any, **kwargs: Any) -> Any:
            if self._generating:
                return original(*args, **kwargs)
            self._generating = True
            try:
                with self._session.plainly():
                    vectors = vista_vectors(self._vista.front, *self._with_and_without(args, kwargs))
                with self._vista.towards(vectors):
                    return self._vista.front.generate(*args, **kwargs)
            finally:
                self._generating = False

        return generate

    def _with_and_without(self, args: Any, kwargs: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """What the model is given of the prompts, and of the same without images."""
        front, ids, images = self._vista.front, given_ids(args, kwargs), take_image_inputs(self._vista.front, kwargs)
        if not isinstance(ids, torch.Tensor):
            raise ArgumentError("VISTA finds its directions from token ids; pass input_ids to generate.")
        given = {name: kwargs[name] for name in ("attention_mask", *TOKEN_TYPES) if kwargs.get(name) is not None}
        mask = given.get("attention_mask", torch.ones_like(ids)).bool()
        prompts = [row[real].tolist() for row, real in zip(ids, mask, strict=True)]
        rows = self._without(prompts)
        if not has_pixels(images) or any(row == prompt for row, prompt in zip(rows, prompts, strict=True)):
            raise ArgumentError(
                "VISTA steers by what its images add to a prompt, and there is a prompt without one; give all of them "
                "images, or vectors= of your own to VISTA."
            )
        bare, real = (one.to(ids.device) for one in padded(rows))
        bare_types = {name: one for name, one in token_types(front, bare, bare.shape[1]).items() if name in given}
        return {"input_ids": ids, **given, **images}, {"input_ids": bare, "attention_mask": real, **bare_types}


def vista_vectors(
    model: Any, inputs: Mapping[str, Any], without: Mapping[str, Any], *, layers: Sequence[int] | None = None
) -> dict[int, torch.Tensor]:
    """For each layer and prompt, what its image adds to the state of its last token: h(with) − h(without).

    Source: the authors' released code, but for the principal component of one difference that it adds, which is an
    arbitrary direction of length 1.

    Args:
        model: an image-text model; PEFT wrappers are looked through.
        inputs: the prompts with their images, as for `generate`.
        without: the same prompts in the same order without images.
        layers: layer numbers; None is all.

    Returns:
        Directions (prompts, features) by layer, on the CPU.

    Raises:
        ArgumentError: the two have not as many prompts, or the image adds nothing to one.
    """
    plain, last = plain_model(model), list[Capture]()
    for given in (inputs, without):
        moved = {
            name: value.to(input_device(plain)) if isinstance(value, torch.Tensor) else value
            for name, value in given.items()
        }
        with Capture(model, layers, positions="last") as capture, torch.no_grad():
            plain.generate(**moved, max_new_tokens=1, do_sample=False)
        last.append(capture)
    if len(last[0].rows) != len(last[1].rows):
        raise ArgumentError(f"inputs has {len(last[0].rows)} prompts, but without has {len(last[1].rows)}.")
    found = {layer: (last[0][layer] - last[1][layer]).cpu() for layer in last[0].layers}
    if not all(bool(one.any(dim=-1).all()) for one in found.values()):
        raise ArgumentError("a prompt says the same with and without its image; give without= no images.")
    return found
