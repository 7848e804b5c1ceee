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
def only_errors() -> Iterator[None]:
    """Let transformers log errors alone inside the block: for a look at what it will read, and speak of, once more."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


@contextmanager
def no_peft_rename() -> Iterator[None]:
    """Hide that peft 0.21 reads a name that transformers 5.24 has renamed."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        yield
