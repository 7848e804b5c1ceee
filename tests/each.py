"""A table of cheap cases as one test: all of them are tried, and what fails is named case by case."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any


def each(names: str | Sequence[str], cases: Iterable[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """As `pytest.mark.parametrize`, for cases that are not worth a test each; fixtures are shared by all of them."""
    known = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
    listed = list(cases)

    def decorated(test: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(test)
        def every(*args: Any, **fixtures: Any) -> None:
            failures = []
            for case in listed:
                values = (case,) if len(known) == 1 else case
                try:
                    test(*args, **fixtures, **dict(zip(known, values, strict=True)))
                except Exception as error:
                    error.add_note(f"case: {', '.join(f'{n}={v!r}' for n, v in zip(known, values, strict=True))}")
                    failures.append(error)
            if len(failures) == 1:
                raise failures[0]
            if failures:
                raise ExceptionGroup(f"{len(failures)} of {len(listed)} cases", failures)

        signature = inspect.signature(test)
        kept = [parameter for name, parameter in signature.parameters.items() if name not in known]
        every.__signature__ = signature.replace(parameters=kept)  # type: ignore[attr-defined]
        del every.__wrapped__  # type: ignore[attr-defined]
        return every

    return decorated
