"""What all tests share: one thread, no hub, the real bundled model, and the benchmark data where a machine has it."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import truthkit as tk

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ROOT = Path(__file__).resolve().parent.parent

# Nothing in the tests may wait for a hub. Read when huggingface_hub is imported, hence no transformers import above.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# What a test starts inherits it: threads that wait for each other burn time.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_configure() -> None:
    """Test machines are shared, and golden tokens should not depend on how many threads a matrix product is split
    over. What is imported stays: looking through it for garbage took a twelfth of the tests' time."""
    gc.disable()
    import torch

    torch.set_num_threads(1)


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.set_threshold(5_000, 10, 10)
    gc.enable()


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Each test starts from the same global seed, whichever tests ran before it."""
    import torch

    torch.manual_seed(0)


@pytest.fixture(scope="session")
def smollm2() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The bundled SmolLM2-135M-Instruct in float32, and its tokenizer. Shared: leave it as you found it."""
    try:
        return tk.load()
    except (tk.NotAvailableError, tk.MissingExtraError) as error:
        pytest.skip(f"the bundled model cannot be loaded here: {error}")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    return shared_folder()


def shared_folder() -> Path:
    """The folder with real benchmark data: $TRUTHKIT_SHARED, else `../shared` beside the checkout."""
    folder = Path(os.environ.get("TRUTHKIT_SHARED") or ROOT.parent / "shared").resolve()
    if not folder.is_dir():
        pytest.skip(f"no benchmark data at {folder}: set TRUTHKIT_SHARED to the folder that holds it")
    return folder
