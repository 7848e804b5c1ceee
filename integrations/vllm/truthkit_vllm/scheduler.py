"""A scheduler that admits all views of a prompt in one step, whole, and only where none will have to make room later.

A view that is a step ahead of the others would be combined with the wrong rows. What would wait for ever is refused:
it ends at once, its finish reason "abort" and its stop reason a sentence.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vllm.platforms import current_platform
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.engine import EngineCoreOutput, EngineCoreOutputs, FinishReason
from vllm.v1.request import Request, RequestStatus

from truthkit_vllm.asked import Asked, asked
from truthkit_vllm.settings import Settings

if TYPE_CHECKING:
    from vllm.v1.core.sched.output import SchedulerOutput

_log = logging.getLogger("vllm.truthkit")

_IDLE = 0.001
"""Seconds to sleep where all there is waits for a view that has not come: the engine asks again at once."""


@dataclass
class _Gang:
    """The views of one prompt that have come so far, and when the first did."""

    members: dict[int, Request] = field(default_factory=dict)
    since: float = field(default_factory=time.monotonic)

    @property
    def whole(self) -> bool:
        return len(self.members) == Asked.VIEWS

    @property
    def alive(self) -> list[Request]:
        return [request for request in self.members.values() if not request.is_finished()]


class GangScheduler(Scheduler):
    """vLLM's own, for engines whose requests may be steered or views of a prompt; others go through it untouched.

    Raises:
        ValueError: the engine schedules in a way that separates views.
    """

    def __init__(self, *args: Any, **named: Any):
        super().__init__(*args, **named)
        config = self.scheduler_config
        if config.async_scheduling or config.long_prefill_token_threshold:
            raise ValueError("views stay in step with async_scheduling=False and long_prefill_token_threshold=0.")
        if len(self.kv_cache_config.kv_cache_groups) != 1 or self.connector is not None:
            raise ValueError("views need a model whose layers all have one kind of cache, in this engine alone.")
        settings = Settings.of(self.vllm_config)
        self._vectors, self._patience = settings.vectors.keys(), settings.patience
        self._last_slot_empty = current_platform.is_cpu()
        self._adapters_seen: set[int] = set()
        self._gangs: dict[str, _Gang] = {}
        self._gang_of: dict[str, str] = {}
        self._ended: list[tuple[Request, str]] = []

    # -- requests that come --------------------------------------------------------------------------------------------

    def add_request(self, request: Request) -> None:
        try:
            about = asked(request.sampling_params)
            self._check(request, about)
        except ValueError as error:
            super().add_request(request)
            self._end([request], str(error))
            return
        if about.steer:
            self._salt(request, about)
        if about.decoder is not None:
            self._gangs.setdefault(about.group, _Gang()).members[about.view] = request
            self._gang_of[request.request_id] = about.group
        super().add_request(request)

    def _check(self, request: Request, about: Asked) -> None:
        """Raise ValueError where the request cannot be answered here."""
        if unknown := about.steer.keys() - self._vectors:
            raise ValueError(f"there is no vector {min(unknown)!r}; this engine has {sorted(self._vectors) or 'none'}.")
        if reason := self._no_slot(request):
            raise ValueError(reason)
        if about.decoder is None:
            return
        if request.has_encoder_inputs or request.resumable:
            raise ValueError("views of a prompt are of text alone, all of it there from the beginning.")
        if (gang := self._gangs.get(about.group)) and (about.view in gang.members or gang.whole):
            raise ValueError(f"view {about.view} of group {about.group!r} is here already; give each prompt its group.")
        others = [] if gang is None else list(gang.members.values())
        apart = bool(others) and self._adapters(others) != self._adapters([request])
        if apart and (about.decoder != "icd" or about.amateur is not None):
            raise ValueError("the views of a prompt have different adapters, as under icd without amateur=prompt only.")
        if reason := self._too_much([*others, request]):
            raise ValueError(reason)

    def _too_much(self, members: list[Request]) -> str:
        """Why views would wait for ever even in an empty engine; "" where they would not."""
        tokens, blocks = sum(one.num_tokens for one in members), sum(map(self._blocks, members))
        if self._seats < Asked.VIEWS:
            return f"a prompt has {Asked.VIEWS} views and the engine room for {self._seats}; raise max_num_seqs."
        if tokens > self.max_num_scheduled_tokens:
            most = self.max_num_scheduled_tokens
            return f"views of {tokens} tokens are read in one step, which has {most}; raise max_num_batched_tokens."
        if blocks > self._all_blocks:
            return f"views may need {blocks} blocks of {self._all_blocks}; lower max_tokens, or add memory."
        return ""

    def _no_slot(self, request: Request) -> str:
        """Why rows without an adapter would get this one; "" where they would not.

        vLLM's kernels for CPUs look up a row without an adapter under −1, which is their last slot: it has to be empty.
        Slots are filled from the first, and one that was filled is not emptied.
        """
        seen = self._adapters_seen | self._adapters([request])
        if self._last_slot_empty and len(seen) >= max(self._most_adapters, 1):
            return f"on a CPU, max_loras={self._most_adapters} is room for one adapter less; raise it."
        self._adapters_seen = seen
        return ""

    @staticmethod
    def _salt(request: Request, about: Asked) -> None:
        """Keep what a steered request leaves in the prefix cache from all that are steered otherwise."""
        request.cache_salt = f"{request.cache_salt or ''} steer {sorted(about.steer.items())}"
        request.block_hashes.clear()
        request.update_block_hashes()

    # -- room ----------------------------------------------------------------------------------------------------------

    @property
    def _seats(self) -> int:
        return min(self.max_num_running_reqs, self.max_num_active_reqs)

    @property
    def _all_blocks(self) -> int:
        manager = self.kv_cache_manager
        return int(manager.block_pool.num_gpu_blocks) - 1 - manager.watermark_blocks  # one is vLLM's null block

    def _blocks(self, request: Request) -> int:
        """How many blocks a request may come to need."""
        longest = min(request.num_prompt_tokens + request.max_tokens, self.max_model_len)
        return -(-longest // self.cache_config.block_size)

    @property
    def _most_adapters(self) -> int:
        return self.lora_config.max_loras if self.lora_config else 0

    @staticmethod
    def _adapters(requests: list[Request]) -> set[int]:
        return {one.lora_request.lora_int_id for one in requests if one.lora_request}

    # -- a step --------------------------------------------------------------------------------------------------------

    def schedule(self, *args: Any, **named: Any) -> SchedulerOutput:
        self._end_separated()
        held = self._held() if self._gangs else []
        for request in held:
            self.waiting.remove_request(request)
        try:
            planned = super().schedule(*args, **named)
        finally:
            for request in reversed(held):
                self.waiting.prepend_request(request)
        if held and not planned.total_num_scheduled_tokens:
            time.sleep(_IDLE)
        return planned

    def _end_separated(self) -> None:
        """End views whose siblings have ended, or have not come for too long."""
        for group, gang in list(self._gangs.items()):
            alive = gang.alive
            if gang.whole and len(alive) < Asked.VIEWS:
                self._end(alive, "another view of this prompt has ended.")
            elif not gang.whole and time.monotonic() - gang.since > self._patience:
                self._end(alive, f"the other view of group {group!r} did not come within {self._patience:g} seconds.")
            elif alive:
                continue
            del self._gangs[group]
            for member in gang.members.values():
                del self._gang_of[member.request_id]

    def _held(self) -> list[Request]:
        """The waiting requests that are not to be admitted now: of those that come in turn, the first without room, and
        all behind it; views that wait for another one, wherever they stand.
        """
        running = self.running
        tokens = self.max_num_scheduled_tokens - sum(one.num_tokens - one.num_computed_tokens for one in running)
        seats = self._seats - len(running)
        blocks = self._all_blocks - sum(map(self._blocks, running))
        adapters = self._adapters(running)
        units: dict[str, list[Request]] = {}
        for request in self.waiting:
            units.setdefault(self._gang_of.get(request.request_id, request.request_id), []).append(request)
        held: list[Request] = []
        full = False
        for key, unit in units.items():
            gang = self._gangs.get(key) if unit[0].request_id in self._gang_of else None
            if gang is not None and not gang.whole:
                held += unit
                continue
            if gang is not None:
                self._level(unit)
            need, room = sum(one.num_tokens for one in unit), sum(map(self._blocks, unit))
            together = adapters | self._adapters(unit)
            fits = len(unit) <= seats and room <= blocks and len(together) <= self._most_adapters
            if not full and fits and need <= tokens:
                tokens, seats, blocks, adapters = tokens - need, seats - len(unit), blocks - room, together
                continue
            if full or gang is not None or not (fits or not running):
                held += unit
            full = True  # a request for itself is still read, in pieces
        return held

    def _level(self, members: list[Request]) -> None:
        """Let views end together: none goes on where another one has reached the model's last position."""
        most = min(min(one.max_tokens, self.max_model_len - one.num_prompt_tokens) for one in members)
        for member in members:
            member.max_tokens = most

    # -- requests that end here ----------------------------------------------------------------------------------------

    def _end(self, requests: list[Request], reason: str) -> None:
        for request in requests:
            _log.warning("request %s is ended: %s", request.request_id, reason)
            self._ended.append((request, reason))
        self.finish_requests([request.request_id for request in requests], RequestStatus.FINISHED_ABORTED)

    def update_from_output(self, *args: Any, **named: Any) -> dict[int, EngineCoreOutputs]:
        outputs = super().update_from_output(*args, **named)
        for request, reason in self._ended:
            last = EngineCoreOutput(request.request_id, [], finish_reason=FinishReason.ABORT, stop_reason=reason)
            outputs.setdefault(request.client_index, EngineCoreOutputs()).outputs.append(last)
        self._ended.clear()
        return outputs
