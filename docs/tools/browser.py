"""A headless Chromium that is told what to do through two pipes: the DevTools protocol without a port or a package."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


class NoBrowser(Exception):
    """There is none on PATH."""


def find() -> str:
    """The path of a Chromium.

    Raises:
        NoBrowser: there is none.
    """
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        raise NoBrowser(f"no headless browser on PATH; install Chromium, as one of {', '.join(NAMES)}.")
    return found


class Browser:
    """One page. `truthkit` pages need no network, so it is off but for this machine."""

    def __init__(self, write: int, read: int):
        self._write, self._read, self._buffer, self._number = write, os.fdopen(read, "rb"), b"", 0
        self._session = ""
        (page,) = (one for one in self("Target.getTargets")["targetInfos"] if one["type"] == "page")
        self._session = self("Target.attachToTarget", targetId=page["targetId"], flatten=True)["sessionId"]
        self("Page.enable")

    def __call__(self, method: str, **params: Any) -> Any:
        """The result of a command of the protocol."""
        self._number += 1
        session = {"sessionId": self._session} if self._session else {}
        message = {"id": self._number, "method": method, "params": params, **session}
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._number:
            pass
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def open(self, url: str, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Show a page, in this size and colour scheme, and wait until it is loaded."""
        self("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self("Emulation.setEmulatedMedia", features=[scheme])
        self("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def run(self, code: str) -> Any:
        """The value of JavaScript, awaited."""
        found = self("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(f"{code}: {found['exceptionDetails']}")
        return found["result"].get("value")

    def wait(self, code: str, *, seconds: float = 60.0) -> None:
        """Until this is true.

        Raises:
            TimeoutError: it is not within that time.
        """
        end = time.monotonic() + seconds
        while not self.run(code):
            if time.monotonic() > end:
                raise TimeoutError(f"not true within {seconds:g} s: {code}")
            time.sleep(0.1)

    def picture(self) -> bytes:
        """What the window shows, as PNG."""
        return base64.b64decode(self("Page.captureScreenshot", format="png")["data"])

    def _next(self) -> Any:
        while b"\0" not in self._buffer:
            if not (chunk := self._read.read1(1 << 20)):
                raise RuntimeError("the browser is gone.")
            self._buffer += chunk
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)


@contextmanager
def browser() -> Iterator[Browser]:
    """A browser with an empty profile, ended behind the block.

    Raises:
        NoBrowser: there is none on PATH.
    """
    command = [find(), "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    to_read, write = os.pipe()
    read, to_write = os.pipe()
    # Chromium reads commands from file 3 and writes answers to file 4.
    shell = ["sh", "-c", f'exec "$0" "$@" 3<&{to_read} 4>&{to_write}']
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = ["--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"]
        process = subprocess.Popen(
            [*shell, *command, *options], pass_fds=(to_read, to_write), stderr=subprocess.DEVNULL
        )
        os.close(to_read)
        os.close(to_write)
        try:
            yield Browser(write, read)
        finally:
            process.terminate()
            process.wait(30)
            os.close(write)
