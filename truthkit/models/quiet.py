"""Loading a file from this disk needs no progress bar, and other packages' renamed names are no news to users."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Switch off transformers' progress bars inside the block and restore them after it. Warnings still show."""
    from transformers.utils import logging

    was_on = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_on:
            logging.enable_progress_bar()


@contextmanager
def no_peft_rename() -> Iterator[None]:
    """Hide that peft 0.21 reads a name that transformers 5.24 has renamed."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        yield
