"""Between a thread and the event loop."""

from __future__ import annotations

import asyncio
import threading

import pytest

from truthkit.serving.outbox import Gone, Outbox


def test_what_is_put_comes_out_in_order() -> None:
    async def main() -> bytes:
        outbox = Outbox()

        def work() -> None:
            for number in range(200):
                outbox.put(b"%d " % number)
            outbox.close()

        thread = threading.Thread(target=work)
        thread.start()
        received = b"".join([content async for content in outbox.contents()])
        thread.join()
        return received

    assert asyncio.run(main()) == b"".join(b"%d " % number for number in range(200))


def test_who_does_not_read_is_gone() -> None:
    async def main() -> None:
        outbox = Outbox(most=10)
        outbox.put(b"x" * 1000)  # one large piece is no reason
        with pytest.raises(Gone):
            outbox.put(b"y")
        with pytest.raises(Gone):
            outbox.put(b"z")
        assert [content async for content in outbox.contents()] == []

    asyncio.run(main())


def test_nothing_is_kept_for_who_has_left() -> None:
    async def main() -> Outbox:
        outbox = Outbox()
        outbox.put(b"x")
        outbox.leave()
        with pytest.raises(Gone):
            outbox.put(b"y")
        return outbox

    with pytest.raises(Gone):  # nor after the loop has ended
        asyncio.run(main()).put(b"z")
