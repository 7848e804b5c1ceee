"""From requests to rows in the line, and from the line, those of one kind together, to the model."""

from __future__ import annotations

import time
from http import HTTPStatus

from truthkit.endpoint.engine import Engine
from truthkit.endpoint.metrics import Metrics
from truthkit.endpoint.replies import Reply
from truthkit.endpoint.request import Asked
from truthkit.endpoint.row import Row
from truthkit.serving.asgi import Refused
from truthkit.serving.line import Full, Job, Line
from truthkit.serving.outbox import Outbox

_PAUSE = 0.01
"""Seconds in which a batch that is not full waits for one more."""


class Desk:
    """Takes requests for an engine.

    Args:
        engine: what answers.
        line: where rows wait.
        metrics: where it is counted.
        batch: rows that are answered together, at most.
    """

    def __init__(self, engine: Engine, line: Line, metrics: Metrics, batch: int = 16):
        self._engine, self._line, self._metrics, self._batch = engine, line, metrics, batch
        self._rows: dict[Job, Row] = {}

    def enter(self, asked: Asked, outbox: Outbox, weight: int) -> tuple[Reply, list[Job]]:
        """Put a request's rows into the line.

        Args:
            asked: the request.
            outbox: where its response goes.
            weight: bytes that it holds while it waits.

        Raises:
            Refused: too much is waiting.
        """
        rows: list[Row] = []
        reply = Reply(
            asked,
            self._engine.offer.name,
            self._engine.tokenizer,
            outbox,
            lambda: sum(len(row.tokens) for row in rows),
        )
        jobs: list[Job] = []
        for index, wish in enumerate(asked.wishes):
            job = self._job(self._engine.kind(wish), 0 if index else weight)
            row = Row(
                wish,
                self._engine.tokenizer,
                self._engine.ends,
                reply.listener(index),
                stopped=job.stop,
                overdue=lambda job=job: job.overdue,  # type: ignore[misc]
            )
            self._rows[job] = row
            rows.append(row)
            jobs.append(job)
        entered: list[Job] = []
        try:
            for job in jobs:
                self._line.join(job)
                entered.append(job)
        except Full as full:
            self.leave(entered)
            for job in jobs[len(entered) :]:
                del self._rows[job]
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, str(full)) from None
        return reply, jobs

    def leave(self, jobs: list[Job]) -> None:
        """End a request's rows, wherever they are; those that are over stay so."""
        for job in jobs:
            self._line.leave(job)

    def _job(self, kind: object, weight: int) -> Job:
        job = Job(lambda _stop: self._work(job), lambda _ahead: None, lambda: self._done(job), weight=weight, kind=kind)
        return job

    def _work(self, job: Job) -> None:
        """Answer the row of `job`, and those of its kind that wait."""
        rows = [self._rows[one] for one in (job, *self._line.take(self._batch - 1, _PAUSE))]
        begun = time.perf_counter()
        self._engine.answer(rows)
        self._metrics.add("truthkit_model_seconds_total", time.perf_counter() - begun)
        self._metrics.add("truthkit_batches_total")
        self._metrics.add("truthkit_prompt_tokens_total", sum(len(row.wish.ids) for row in rows))
        self._metrics.add("truthkit_generated_tokens_total", sum(len(row.tokens) for row in rows))

    def _done(self, job: Job) -> None:
        row = self._rows.pop(job)
        row.drop()
        self._metrics.add("truthkit_answers_total", finish=row.finish)
