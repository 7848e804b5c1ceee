"""Activations kept on disk, so that memory does not grow with the number of texts."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from truthkit.errors import NotAvailableError
from truthkit.files.writing import writing
from truthkit.parallel import Shards


class Spool:
    """A file of shape (layers, rows, features): written a batch at a time, read a layer at a time.

    The file is accessed by offset and never mapped, so what is not being read takes no memory.

    Args:
        path: the file; made, at full length, where it does not exist yet.
        layers, rows, features: its shape.
        dtype: float32 or float64.
    """

    def __init__(self, path: Path, layers: int, rows: int, features: int, dtype: torch.dtype = torch.float32):
        self.path, self.layers, self.rows, self.features = path, layers, rows, features
        self._numpy = np.dtype(np.float64 if dtype == torch.float64 else np.float32)
        self._row_bytes = features * self._numpy.itemsize
        with writing(path):
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            os.ftruncate(self._file, layers * rows * self._row_bytes)

    def write(self, rows: list[int], values: torch.Tensor) -> None:
        """Put `values` (layers, len(rows), features) in their places.

        Raises:
            NotAvailableError: they can't be written, the disk is full for one.
        """
        array = values.cpu().numpy().astype(self._numpy, copy=False)
        for layer in range(self.layers):
            for i, row in enumerate(rows):
                self._put(array[layer, i].tobytes(), (layer * self.rows + row) * self._row_bytes)

    def write_layer(self, layer: int, values: torch.Tensor) -> None:
        """Put all rows (rows, features) of one layer in their place."""
        data = values.cpu().numpy().astype(self._numpy, copy=False).tobytes()
        self._put(data, layer * self.rows * self._row_bytes)

    def _put(self, data: bytes, offset: int) -> None:
        """Write all of it; a full disk takes a part and says how much, and only the next call is an error."""
        view = memoryview(data)
        with writing(self.path):
            while view:
                count = os.pwrite(self._file, view, offset)
                view, offset = view[count:], offset + count

    def read(self, layer: int) -> torch.Tensor:
        """One layer, (rows, features)."""
        length = self.rows * self._row_bytes
        data = bytearray(length)
        view, done = memoryview(data), 0
        while done < length:
            count = os.preadv(self._file, [view[done:]], layer * length + done)
            if count == 0:
                raise NotAvailableError(f"{self.path} ends early; it was changed while it was in use.")
            done += count
        return torch.from_numpy(np.frombuffer(data, dtype=self._numpy).reshape(self.rows, self.features))

    @contextmanager
    def summed(self, shards: Shards) -> Iterator[Spool]:
        """All processes' states: each has written its own rows, and zeros elsewhere."""
        with tempfile.TemporaryDirectory(prefix="truthkit-") as folder:
            dtype = torch.float64 if self._numpy == np.float64 else torch.float32
            whole = Spool(Path(folder) / "states.bin", self.layers, self.rows, self.features, dtype)
            for layer in range(self.layers):
                whole.write_layer(layer, shards.summed(self.read(layer)))
            try:
                yield whole
            finally:
                whole.close()

    def flush(self) -> None:
        """Make sure that all of it is on disk."""
        os.fsync(self._file)

    def close(self) -> None:
        os.close(self._file)
