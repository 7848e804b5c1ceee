"""Bytes that a waiting request holds, out of the memory."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Sequence

_LARGE = 2**18
"""Bytes from which a file is worth it."""


class Aside:
    """Contents laid aside in a file without a name until they are read; in memory where they are small, or where no
    file can be made.

    Args:
        contents: what to keep.
    """

    def __init__(self, contents: Sequence[bytes]):
        self._sizes = list(map(len, contents))
        self._contents: list[bytes] | None = list(contents)
        if sum(self._sizes) < _LARGE:
            return
        try:
            file = tempfile.TemporaryFile(prefix="truthkit-", buffering=0)  # noqa: SIM115  # closed with this object
        except OSError:  # no folder that can be written, or too many open files
            return
        closing = weakref.finalize(self, file.close)
        try:
            for content in contents:
                view = memoryview(content)
                while view:
                    view = view[file.write(view) :]
        except OSError:  # a full disk
            closing()
            return
        self._file, self._contents = file, None

    def __len__(self) -> int:
        return len(self._sizes)

    def read(self) -> list[bytes]:
        """The contents, as they were given."""
        if self._contents is not None:
            return list(self._contents)
        self._file.seek(0)
        return [self._whole(size) for size in self._sizes]

    def _whole(self, size: int) -> bytes:
        content = bytearray()
        while len(content) < size and (part := self._file.read(size - len(content))):
            content += part
        return bytes(content)
