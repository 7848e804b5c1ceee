"""One of several processes: `python -m tests.spread.worker FOLDER` writes what all cases gave to `FOLDER/rank.pt`.

Two processes hold one model; of four, every two hold a copy.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any

import torch
from torch.distributed.fsdp import fully_shard

from tests.spread import cases, pretend
from tests.spread.cases import Bench, Case, Result, loaded
from truthkit.errors import TruthkitError

_PATIENCE = 300
"""Seconds until processes that wait for each other say where, and end."""


def outcome(case: Case, bench: Bench) -> Result:
    """What came out, or why nothing did."""
    try:
        found = case(bench)
    except TruthkitError as error:
        return f"refused: {error}"
    except Exception:
        return f"failed: {traceback.format_exc()}"
    return pretend.back(found).clone() if isinstance(found, torch.Tensor) else found


def tensor_parallel(folder: Path, rank: int) -> dict[str, Result]:
    """All processes ask the same."""

    def load(name: str) -> tuple[Any, Any]:
        return loaded(name, folder, tp_plan="auto", tp_size=2)

    bench = Bench(folder, folder / "spread", load("text")[0], load, loaded("other", folder)[0])
    bench.more, bench.writes, bench.meet = ("--tp", "2"), rank == 0, torch.distributed.barrier
    some = cases.TENSOR_PARALLEL | cases.COMMANDS if torch.distributed.get_world_size() == 2 else cases.TWO_COPIES
    return {name: outcome(case, bench) for name, case in some.items()}


def fully_sharded(folder: Path, rank: int) -> dict[str, Result]:
    """Each process asks about a prompt of its own, and they end at different tokens."""

    def load(name: str) -> tuple[Any, Any]:
        model, processor = loaded(name, folder)
        for block in model.get_decoder().layers:
            fully_shard(block)
        fully_shard(model)
        return model, processor

    bench = Bench(folder, folder / "sharded", load("text")[0], load, loaded("other", folder)[0])
    bench.options, bench.row = {"synced_gpus": True}, rank
    return {name: outcome(case, bench) for name, case in cases.FULLY_SHARDED.items()}


def several_devices(folder: Path, rank: int) -> dict[str, Result]:
    """Every process asks a half of the cases, of a model on two pretended devices and an amateur on the second."""
    pretend.install()
    model, other = (loaded(name, folder)[0] for name in ("text", "other"))
    bench = Bench(folder, folder / "devices", pretend.spread(model), pretend.refuse, pretend.placed(other, 1))
    bench.place = lambda tensor: pretend.moved(tensor, 0)
    mine = list(cases.SEVERAL_DEVICES.items())[rank::2]
    with pretend.pretending(), torch.no_grad():
        return {name: outcome(case, bench) for name, case in mine}


def main(folder: Path) -> None:
    """Run all, under a time limit."""
    faulthandler.dump_traceback_later(_PATIENCE, exit=True)
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
    rank = int(os.environ["RANK"])
    found = {"tensor parallel": tensor_parallel(folder, rank)}
    if torch.distributed.get_world_size() == 2:
        found["fully sharded"] = fully_sharded(folder, rank)
        torch.distributed.destroy_process_group()
        del os.environ["WORLD_SIZE"]
        found["several devices"] = several_devices(folder, rank)
    torch.save(found, folder / f"{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
