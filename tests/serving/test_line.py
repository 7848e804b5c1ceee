"""Who is when whose turn, without a network."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from truthkit.serving.line import Full, Job, Line
from truthkit.serving.outbox import Gone


@pytest.fixture
def line() -> Iterator[Line]:
    made = Line(most=3, weight=100)
    yield made
    made.close()


class Held:
    """A job that runs until it is let go or told to stop, and what became of it."""

    def __init__(self, name: str = "", weight: int = 0):
        self.begun, self.free, self.over = threading.Event(), threading.Event(), threading.Event()
        self.moves: list[int] = []
        self.stopped: bool | None = None
        self.thread = ""
        self.job = Job(self._work, self.moves.append, self.over.set, name=name, weight=weight)

    def _work(self, stop: Callable[[], bool]) -> None:
        self.thread = threading.current_thread().name
        self.begun.set()
        until = time.monotonic() + 20
        while not self.free.is_set() and not stop() and time.monotonic() < until:
            time.sleep(0.002)
        self.stopped = stop()


def test_jobs_run_one_by_one_in_order_and_know_their_place(line: Line) -> None:
    jobs = [Held() for _ in range(4)]
    for held in jobs:
        line.join(held.job)
        assert jobs[0].begun.wait(5)
    assert [held.moves for held in jobs] == [[], [1], [2], [3]]
    for held in jobs:
        assert held.begun.wait(5)
        assert sum(other.begun.is_set() and not other.over.is_set() for other in jobs) == 1
        held.free.set()
        assert held.over.wait(5)
    assert [held.moves for held in jobs] == [[], [1], [2, 1], [3, 2, 1]]
    assert {held.thread for held in jobs} == {"truthkit model"}
    assert [held.stopped for held in jobs] == [False] * 4


def test_who_leaves_makes_room(line: Line) -> None:
    first, second, third = (Held() for _ in range(3))
    for held in (first, second, third):
        line.join(held.job)
        assert first.begun.wait(5)
    line.leave(second.job)
    assert second.over.is_set()
    assert third.moves[-1] == 1
    line.leave(first.job)
    assert first.over.wait(5)
    assert first.stopped
    assert third.begun.wait(5)
    assert not second.begun.is_set()
    line.leave(first.job)  # once more is nothing
    third.free.set()
    assert third.over.wait(5)
    assert third.stopped is False


def test_only_what_runs_is_cancelled_by_name(line: Line) -> None:
    first, second = Held("a"), Held("b")
    line.join(first.job)
    assert first.begun.wait(5)
    line.join(second.job)
    assert not line.cancel("b")
    assert not line.cancel("")
    assert line.cancel("a")
    assert second.begun.wait(5)
    assert not line.cancel("a")
    assert first.stopped
    second.free.set()


def test_a_full_line_says_so(line: Line) -> None:
    running = Held(weight=90)
    line.join(running.job)
    assert running.begun.wait(5)
    line.join(Held(weight=1000).job)  # alone it may be as heavy as a request may be
    with pytest.raises(Full, match="the images of the requests"):
        line.join(Held(weight=1).job)
    line.leave(line._waiting[0])
    for _ in range(3):
        line.join(Held().job)
    with pytest.raises(Full, match="3 requests are waiting already; try again"):
        line.join(Held().job)


def test_a_job_has_its_time() -> None:
    line = Line(seconds=0.05)
    held = Held()
    line.join(held.job)
    assert held.over.wait(5)
    assert held.stopped
    assert held.job.overdue
    line.close()


def test_faults_end_one_job_only(line: Line, capsys: pytest.CaptureFixture[str]) -> None:
    def fault(error: Exception) -> Callable[..., Any]:
        def work(_stop: Any) -> None:
            raise error

        return work

    done = [threading.Event() for _ in range(2)]
    line.join(Job(fault(KeyError("x")), print, done[0].set))
    line.join(Job(fault(Gone()), fault(ValueError("in moved")), done[1].set))
    assert all(event.wait(5) for event in done)
    after = Held()
    line.join(after.job)
    assert after.begun.wait(5)
    after.free.set()
    shown = capsys.readouterr().err
    assert "KeyError: 'x'" in shown
    assert "Gone" not in shown


def test_a_closed_line_has_ended_everything() -> None:
    line = Line()
    first, second = Held(), Held()
    line.join(first.job)
    assert first.begun.wait(5)
    line.join(second.job)
    line.close()
    assert first.stopped
    assert first.over.is_set()
    assert second.over.is_set()
    assert not second.begun.is_set()
    with pytest.raises(Full, match="is stopping"):
        line.join(Held().job)


class Shared:
    """A job that takes others of its kind, and which had the model together."""

    def __init__(self, line: Line, kind: Any, together: list[list[Any]], most: int = 2):
        self.free, self.over = threading.Event(), threading.Event()
        self.kind = kind

        def work(_stop: Callable[[], bool]) -> None:
            together.append([self.job, *line.take(most)])
            self.free.wait(20)

        self.job = Job(work, lambda _ahead: None, self.over.set, kind=kind)


def test_jobs_of_one_kind_have_the_model_together() -> None:
    line, together = Line(), list[list[Any]]()
    first = Held()
    line.join(first.job)
    assert first.begun.wait(5)
    jobs = [Shared(line, kind, together) for kind in ("a", "b", "a", "a", "a", None, None)]
    for one in jobs:
        one.free.set()
        line.join(one.job)
    assert line.lengths == (7, 1)
    first.free.set()
    for one in jobs:
        assert one.over.wait(5)
    names = {one.job: number for number, one in enumerate(jobs)}
    assert [[names[job] for job in taken] for taken in together] == [[0, 2, 3], [1], [4], [5], [6]]
    line.close()


def test_who_was_taken_can_leave_and_is_ended_with_the_line() -> None:
    line, together = Line(), list[list[Any]]()
    first = Held()
    line.join(first.job)
    assert first.begun.wait(5)
    jobs = [Shared(line, "a", together) for _ in range(3)]
    for one in jobs:
        line.join(one.job)
    first.free.set()
    until = time.monotonic() + 5
    while not together and time.monotonic() < until:
        time.sleep(0.002)
    line.leave(jobs[1].job)
    assert [one.job.stop() for one in jobs] == [False, True, False]
    assert not jobs[1].over.is_set()
    jobs[0].free.set()
    line.close()
    assert all(one.over.is_set() for one in jobs)


def test_it_waits_while_others_keep_coming() -> None:
    line, together = Line(), list[list[Any]]()
    jobs: list[Job] = []

    def work(_stop: Callable[[], bool]) -> None:
        together.append(line.take(2, 5.0))

    over = threading.Event()
    jobs = [Job(work, lambda _ahead: None, over.set, kind="a") for _ in range(3)]
    for job in jobs:
        line.join(job)
    assert over.wait(5)
    line.close()
    assert together == [jobs[1:]]
