"""Items made in a background thread: order, bound, errors, and an end whenever the consumer stops."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator

import pytest
import torch

from hilam_hf.video.prefetch import DeviceFeed, prefetch

SECONDS = 10


def prefetch_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    gc.collect()
    assert prefetch_threads() == []


class Numbers:
    """0, 1, 2, ..., with a record of what was made, where, and whether it was closed."""

    def __init__(self, stop: int = 10**9) -> None:
        self.stop = stop
        self.made: list[int] = []
        self.thread: threading.Thread | None = None
        self.closed = threading.Event()
        self.several = threading.Event()

    def __iter__(self) -> Iterator[int]:
        self.thread = threading.current_thread()
        try:
            for number in range(self.stop):
                self.made.append(number)
                if number >= 2:
                    self.several.set()
                yield number
        finally:
            self.closed.set()


@pytest.mark.parametrize("depth", [1, 2, 50])
def test_all_items_in_their_order(depth: int) -> None:
    numbers = Numbers(20)
    assert list(prefetch(numbers, depth)) == list(range(20))
    assert numbers.thread is not threading.current_thread()
    assert list(prefetch([], depth)) == []


def test_items_that_are_none_or_errors_are_items() -> None:
    error = ValueError("an item")
    assert list(prefetch([None, error, None])) == [None, error, None]


def test_items_are_made_while_the_consumer_is_busy_and_no_more_than_the_depth() -> None:
    numbers = Numbers()
    ahead = prefetch(numbers, depth=2)
    assert next(ahead) == 0
    assert numbers.several.wait(SECONDS)  # 1 and 2 without anybody asking for them
    for expected in range(1, 200):
        assert next(ahead) == expected
        # 2 wait, one is in the making.
        assert len(numbers.made) <= expected + 1 + 3
    ahead.close()


def test_nothing_starts_before_the_first_item_is_asked_for() -> None:
    numbers = Numbers()
    ahead = prefetch(numbers)
    assert prefetch_threads() == []
    del ahead
    assert numbers.made == []


class OwnError(ValueError):
    pass


def test_an_error_comes_after_the_items_before_it_with_its_type() -> None:
    def failing() -> Iterator[int]:
        yield from range(3)
        raise OwnError("the fourth")

    ahead, found = prefetch(failing(), depth=1), []
    with pytest.raises(OwnError, match="the fourth"):
        for number in ahead:
            found.append(number)
    assert found == [0, 1, 2]


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("taken", [1, 5])
def test_closing_ends_the_thread_and_the_source(depth: int, taken: int) -> None:
    for _ in range(20):  # the thread may be anywhere
        numbers = Numbers()
        ahead = prefetch(numbers, depth)
        for _ in range(taken):
            next(ahead)
        ahead.close()
        assert prefetch_threads() == []
        assert numbers.closed.is_set()


def test_a_consumer_that_fails_leaves_no_thread() -> None:
    def consume() -> None:
        for number in prefetch(Numbers()):
            if number == 3:
                raise OwnError

    with pytest.raises(OwnError):
        consume()
    gc.collect()
    assert prefetch_threads() == []


def test_a_depth_below_one_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="depth: got 0, expected at least 1"):
        prefetch([1], depth=0)


def test_on_a_cpu_tensors_are_handed_over_as_they_are() -> None:
    feed, tensor = DeviceFeed(torch.device("cpu")), torch.arange(3)
    sent, done = feed.send(tensor)
    assert done is None
    assert feed.receive(sent, done) is tensor


@pytest.mark.gpu
def test_on_a_gpu_copies_are_whole_when_they_are_used() -> None:
    device = torch.device("cuda")
    feed = DeviceFeed(device)
    sources = [torch.randint(256, (64, 3, 224, 224), dtype=torch.uint8) for _ in range(8)]
    sums = [feed.receive(*sent).long().sum() for sent in prefetch((feed.send(source) for source in sources), depth=3)]
    assert [int(total) for total in sums] == [int(source.long().sum()) for source in sources]
