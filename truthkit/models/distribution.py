"""Tensor parallelism: a model of which every process of a launch holds a part, as transformers' `DistributedConfig`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from truthkit.errors import ArgumentError, ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig
    from transformers.distributed.configuration_utils import DistributedConfig

    from truthkit.models.types import TensorParallel


def tensor_parallel(plan: TensorParallel | None, size: int | None) -> DistributedConfig | None:
    """What `from_pretrained` takes as its `distributed_config`; None where neither is given.

    With more processes than `size`, so many at a time hold a copy, those with neighbouring numbers.

    Raises:
        ArgumentError: as `check_processes`.
    """
    if plan is None and size is None:
        return None
    size, world = check_processes(plan, size)
    from truthkit.hf.copies import Copies

    return Copies(tp_plan=plan or "auto", tp_size=size, dp_replicate_size=world // size)


def check_processes(plan: TensorParallel | None, size: int | None, **others: Any) -> tuple[int, int]:
    """How many processes are to hold a copy, and how many there are.

    Args:
        plan: `tp_plan` of `tk.load`.
        size: its `tp_size`.
        others: its arguments that do not go with these.

    Raises:
        ArgumentError: this is the only process, or they cannot be shared out; or one of `others` is given.
    """
    if found := [f"{name}={value!r}" for name, value in others.items() if value is not None]:
        raise ArgumentError(
            f"tensor parallelism cannot be combined with {found[0]}: each process holds a part of every layer. Leave "
            "one of the two out."
        )
    if plan not in (None, "auto") and not isinstance(plan, dict):
        raise ArgumentError(f"tp_plan is {plan!r}; expected 'auto', or a dict from module name to style.")
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 2):
        raise ArgumentError(f"tp_size (--tp) is {size!r}; expected at least 2 processes for a model.")
    world = int(os.environ.get("WORLD_SIZE", 1))
    if world < 2 or "RANK" not in os.environ or "LOCAL_RANK" not in os.environ:
        raise ArgumentError(
            f"tensor parallelism takes several processes, and this is none of several (WORLD_SIZE is {world}; "
            "expected 2 or more, and RANK and LOCAL_RANK); start it with `torchrun --nproc_per_node 2 SCRIPT`, or "
            "`torchrun --nproc_per_node 2 -m truthkit.cli COMMAND --tp 2`."
        )
    if size is not None and world % size:
        raise ArgumentError(f"tp_size (--tp) is {size}, but {world} processes run, which it does not divide.")
    return size or world, world


def check_divides(name: str, config: PreTrainedConfig, distribution: DistributedConfig) -> None:
    """Raises:
    ModelError: attention heads of this model cannot be shared out among the processes.
    """
    text, size = config.get_text_config(decoder=True), distribution.tp_size
    for which in ("num_attention_heads", "num_key_value_heads"):
        if (heads := getattr(text, which, None)) is not None and heads % (size or 1):
            raise ModelError(
                f"{name!r} has {which}={heads}, which {size} processes cannot share out evenly; use a number that "
                "divides it."
            )


@contextmanager
def having_a_plan(name: str) -> Iterator[None]:
    """A block in which transformers loads the model.

    Raises:
        ModelError: it knows no way to spread this model's weights.
    """
    try:
        yield
    except ValueError as error:
        if "tp_plan" not in str(error):
            raise
        raise ModelError(f"transformers has no tensor-parallel plan for {name!r}; load it without tp_plan.") from error
