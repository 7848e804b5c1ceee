"""A decoding method as something that is built once, does not change, and can be written down."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from truthkit.decoding.engine.controls import Control, model_alone
from truthkit.decoding.engine.registry import FROM_PROMPT, register
from truthkit.decoding.engine.written import shown, spec_text
from truthkit.errors import ArgumentError


class DecodingMethod:
    """What all decoding methods have; a subclass with a `name` in its body is known by it to command lines."""

    name: ClassVar[str] = ""
    """What command lines and records call it; "" for none."""

    sees_images: ClassVar[bool] = False
    """Whether it compares images, and so needs one."""

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            cls.__init__ = _kept(vars(cls)["__init__"])  # type: ignore[method-assign]
        if "name" in vars(cls):
            register(cls)

    @classmethod
    def controls(cls, **options: Any) -> tuple[Control, ...]:
        """What an honest table puts beside this decoder with these options; those left out are as by default.

        That is the model alone: by greedy search, by sampling, and by sampling as cool as the method makes it (see
        `cooler`) and under its plausibility constraint.
        """
        known = _defaults(cls) | options
        return model_alone(cls.cooler(**known), known.get("beta", 0.0))

    @classmethod
    def cooler(cls, **options: Any) -> float:
        """What the scores multiply the model's logits by where the views add nothing of their own, given all options.

        1 is right for methods that contrast log-probabilities.
        """
        return 1.0

    @property
    def options(self) -> dict[str, Any]:
        """The options that it was built with, without those that are as by default or hold parts of the prompt."""
        given, defaults = vars(self)["_built_with"], _defaults(type(self))
        return {key: _plain(value) for key, value in given.items() if not _same(value, defaults.get(key, _NOTHING))}

    @property
    def spec(self) -> str:
        """The decoder as text, which `truthkit.decoding.spec.parse_spec` reads back.

        Raises:
            ArgumentError: it has no name, or an option that cannot be written, such as a function or a model.
        """
        if not self.name:
            raise ArgumentError(
                f"{type(self).__name__} has no name to be written by; put name = ... in the body of the class."
            )
        return spec_text(self.name, self.options)

    def __repr__(self) -> str:
        options = [f"{key}={shown(value)}" for key, value in self.options.items()]
        return f"{type(self).__name__}({', '.join(['model', *options])})"

    def __setattr__(self, name: str, value: Any) -> None:
        if "_built_with" in vars(self):
            raise AttributeError(
                f"{name} of {type(self).__name__} cannot be set: a decoder does not change once it is built. Build "
                "another one; what arises while decoding belongs to the session."
            )
        super().__setattr__(name, value)


def _kept(init: Callable[..., None]) -> Callable[..., None]:
    """A constructor that keeps the options it is given; with them a decoder is built."""

    @functools.wraps(init)
    def build(self: DecodingMethod, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        if type(self).__init__ is build:  # else a subclass goes on building
            given = inspect.signature(type(self)).bind(*args, **kwargs).arguments
            known = _parameters(type(self)).keys() - FROM_PROMPT
            vars(self)["_built_with"] = {key: value for key, value in given.items() if key in known}

    return build


def _defaults(cls: type) -> dict[str, Any]:
    """The options of a decoder class that have a default."""
    return {key: one.default for key, one in _parameters(cls).items() if one.default is not one.empty}


def _parameters(cls: type) -> dict[str, inspect.Parameter]:
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    found = inspect.signature(cls).parameters.items()
    return {key: one for key, one in found if key not in ("model", "processor") and one.kind not in several}


def _plain(value: Any) -> Any:
    """Layer numbers and names as a list, whatever sequence they were."""
    several = isinstance(value, Sequence) and not isinstance(value, str)
    return list(value) if several and all(isinstance(one, int | str) for one in value) else value


def _same(value: Any, default: Any) -> bool:
    return value is default or (isinstance(value, bool | int | float | str) and bool(value == default))


_NOTHING = object()
