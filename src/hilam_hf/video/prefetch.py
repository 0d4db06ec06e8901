"""Work done ahead of its use: items made in a background thread, tensors copied to a device beside its computation."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable
from queue import Empty, Queue
from typing import Generic, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


def prefetch(items: Iterable[T], depth: int = 2) -> Generator[T, None, None]:
    """Goes through `items` in a background thread, a few ahead of the consumer.

    The thread starts with the first item that is asked for. It ends with the last one, or when the returned generator
    is closed, at the latest when it is collected; `items` is then closed as well, in the thread.

    Args:
        items: What is made ahead. No other thread may use it.
        depth: Items that wait at most; one more is in the making.

    Yields:
        The items, in their order.

    Raises:
        ValueError: If `depth` is below 1.
        BaseException: Whatever `items` raises, after the items before it.
    """
    if depth < 1:
        raise ValueError(f"depth: got {depth}, expected at least 1")
    return _consume(_Producer(items, depth))


class _Producer(Generic[T]):
    """The thread's side of a bounded queue."""

    def __init__(self, items: Iterable[T], depth: int) -> None:
        self._items = items
        # A one-tuple is an item; an error or None is the end.
        self.made: Queue[tuple[T] | BaseException | None] = Queue(depth)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="prefetch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        # The thread may wait for room; once there is some it puts at most one item before it looks at the event.
        while True:
            try:
                self.made.get_nowait()
            except Empty:
                break
        self._thread.join()

    def _run(self) -> None:
        end: BaseException | None = None
        try:
            self._put_items()
        except BaseException as error:  # handed to the consumer, where it is raised
            end = error
        if not self._stopped.is_set():
            self.made.put(end)

    def _put_items(self) -> None:
        iterator = iter(self._items)
        try:
            for item in iterator:
                self.made.put((item,))
                del item  # else it would live on while the next one is made
                if self._stopped.is_set():
                    return
        finally:
            if hasattr(iterator, "close"):
                iterator.close()


def _consume(producer: _Producer[T]) -> Generator[T, None, None]:
    producer.start()
    try:
        while True:
            made = producer.made.get()
            if made is None:
                return
            if isinstance(made, BaseException):
                raise made
            (item,) = made
            del made
            yield item
            del item
    finally:
        producer.stop()


class DeviceFeed:
    """Copies tensors to a device: sent by one thread, received by the one that computes there.

    On CUDA the copies go from pinned memory in a stream of their own, beside the computation; elsewhere they are plain.

    Args:
        device: Where the tensors go.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def send(self, tensor: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
        """Starts the copy of a tensor that lies on the CPU, and says when it is done."""
        if self._stream is None:
            return tensor.to(self.device), None
        with torch.cuda.stream(self._stream):
            return tensor.pin_memory().to(self.device, non_blocking=True), self._stream.record_event()

    def receive(self, tensor: Tensor, done: torch.cuda.Event | None) -> Tensor:
        """The tensor, for use in the current stream, which waits for the copy; the calling thread does not."""
        if done is not None:
            current = torch.cuda.current_stream(self.device)
            current.wait_event(done)
            # It was allocated for the other stream, which must not reuse its memory before this one is through.
            tensor.record_stream(current)
        return tensor
