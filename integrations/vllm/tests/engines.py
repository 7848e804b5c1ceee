"""What every engine of the tests is told, and a crowd that comes to one."""

from __future__ import annotations

import random
from typing import Any

SMALL = {
    "dtype": "float32",
    "max_model_len": 512,
    "max_num_seqs": 64,
    "block_size": 32,
    "disable_log_stats": True,
}


def arrivals(llm: Any, requests: list[tuple[Any, Any]], seed: int, *, preempt: float = 0.0) -> list[Any]:
    """Outputs of requests that come in a random order, up to four before each step; all that run are put off and read
    again in a share `preempt` of the steps.
    """
    draw = random.Random(seed)
    order = list(range(len(requests)))
    draw.shuffle(order)
    outputs: dict[str, Any] = {}
    core = llm.llm_engine
    while order or core.has_unfinished_requests():
        for _ in range(draw.randrange(5)):
            if order:
                number = order.pop()
                core.add_request(str(number), requests[number][0], requests[number][1])
        if preempt and draw.random() < preempt:
            assert core.reset_prefix_cache(reset_running_requests=True)
        outputs |= {one.request_id: one for one in core.step() if one.finished}
    return [outputs[str(number)] for number in range(len(requests))]
