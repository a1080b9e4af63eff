"""The stream and the buffers of one thread that computes on the GPU."""

from typing import Any, NamedTuple

import numpy as np
from numba import cuda
from numpy import float32, int32
from numpy.typing import NDArray

from .packing import DeviceArray, round_up_rows, upload


class Rows(NamedTuple):
    """Activations in GPU memory."""

    data: DeviceArray  # flat
    length: int  # rows that are real; there is room up to round_up_rows(length), with anything in it
    stride: int  # numbers in a row


class Workspace:
    """A stream, and arrays that grow to the largest size asked for and are used again.

    Every forward pass ends by waiting for its stream, so the next one finds all arrays free.
    """

    def __init__(self) -> None:
        self.stream: Any = cuda.stream()
        self._arrays: dict[str, DeviceArray] = {}
        self._staging: dict[str, NDArray[int32]] = {}
        self._sent: dict[str, NDArray[Any]] = {}

    def take(self, name: str, length: int, stride: int) -> Rows:
        """Return room for `length` rows. Columns that no kernel ever writes are 0."""
        size = round_up_rows(length) * stride
        if name not in self._arrays or self._arrays[name].size < size:
            self._arrays[name] = upload(np.zeros(size, float32), self.stream)
        return Rows(self._arrays[name], length, stride)

    def send(self, name: str, *parts: NDArray[Any]) -> DeviceArray:
        """Copy whole numbers to GPU memory, one part after the other, by way of memory that the GPU reads itself."""
        size = sum(len(part) for part in parts)
        if name not in self._staging or len(self._staging[name]) < size:
            self._staging[name] = cuda.pinned_array(size, int32)
            self._arrays[name] = cuda.device_array(size, int32, stream=self.stream)
        np.concatenate(parts, out=self._staging[name][:size], casting="same_kind")
        self._arrays[name].copy_to_device(self._staging[name], stream=self.stream)
        return self._arrays[name]

    def send_once(self, name: str, array: NDArray[Any]) -> DeviceArray:
        """Copy an array as `send` does, unless it is the one that was sent last."""
        if self._sent.get(name) is not array:
            self.send(name, array)
            self._sent[name] = array  # kept, so that no other array can take its identity
        return self._arrays[name]

    def fetch(self, rows: Rows) -> NDArray[float32]:
        """Wait for the stream and copy rows back: (length, stride)."""
        flat = rows.data[: rows.length * rows.stride].copy_to_host(stream=self.stream)
        self.stream.synchronize()
        result: NDArray[float32] = flat.reshape(rows.length, rows.stride)
        return result

    def leave(self) -> None:
        """Tell the other members of the team, of which there are none, that this one has failed."""


def make_team(size: int) -> list[Workspace]:
    """Return the workspaces of the threads that compute a shard together: of one, as the GPU has its own threads."""
    return [Workspace()]
