"""A disk that is full: an error of one line, nothing lost, the old file as it was.

A process that may write but 200 bytes of a file stands for it: Linux then takes a part of what is to be written, as a
full disk does, and nothing the next time.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.conftest import ROOT
from tests.tiny import tiny
from truthkit.activations.spool import Spool
from truthkit.cli import transforms
from truthkit.figures import new_figure, save_figure
from truthkit.files.tensors import State
from truthkit.steering import SteeringVector
from truthkit.steering.formats import to_gguf, to_lm_eval, to_numpy
from truthkit.steering.plots import plot_tokens

_SCRIPT = """
    import resource, signal, sys
    from pathlib import Path
    from tests.files.test_full_disk import saves
    from truthkit.errors import NotAvailableError

    work = saves(Path(sys.argv[1]), 2.0)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))
    for name, save in work.items():
        try:
            save()
        except NotAvailableError as error:
            print(name, "cannot be written" in str(error))
"""


def saves(folder: Path, value: float) -> dict[str, Callable[[], object]]:
    """What writes more than 200 bytes, by the name of its file."""
    model = tiny("gpt2").eval()
    width = model.config.hidden_size
    vector = SteeringVector({1: torch.full((width,), value), 2: torch.ones(width)}, model.config.num_hidden_layers)
    spool = Spool(folder / "spool", 1, 1, 40_000)
    image = folder / "image.png"
    Image.new("RGB", (8, 8), "red").save(image)
    state = State(folder / "state.safetensors", "00" * 32, work="test", every=1.0)
    return {
        "spool": lambda: spool.write([0], torch.full((1, 1, 40_000), value)),
        "state.safetensors": lambda: state.write({"losses": torch.full((100,), value)}),
        "v.safetensors": lambda: vector.save(folder / "v.safetensors"),
        "v.npz": lambda: to_numpy(vector, folder / "v.npz"),
        "v.gguf": lambda: to_gguf(vector, folder / "v.gguf"),
        "v.pt": lambda: to_lm_eval(vector.at(1), folder / "v.pt", model),
        "page.html": lambda: plot_tokens(["a"], [value], folder / "page.html"),
        "sheet.png": lambda: transforms.run(argparse.Namespace(image=image, out=folder / "sheet.png", seed=int(value))),
        "plot.png": lambda: save_figure(new_figure(value, 1), folder / "plot.png"),
    }


def test_every_save_on_a_full_disk(tmp_path: Path) -> None:
    work = saves(tmp_path, 1.0)
    for save in work.values():
        save()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    command = [sys.executable, "-c", textwrap.dedent(_SCRIPT), str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"{name} True" for name in work]
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert before.pop("spool") != after.pop("spool")  # written in place, and said to be in part
    assert after == before


def test_a_write_in_parts_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system may take less than it is given; what is left is written next."""
    whole = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, offset: whole(file, data[:1000], offset))
    spool = Spool(tmp_path / "spool", 2, 3, 500)
    values = torch.arange(2 * 3 * 500, dtype=torch.float32).view(2, 3, 500)
    spool.write([2, 0, 1], values)
    assert torch.equal(spool.read(1), values[1][[1, 2, 0]])
    spool.write_layer(0, values[0])
    assert torch.equal(spool.read(0), values[0])
    spool.close()
