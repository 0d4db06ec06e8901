"""How many frames an inverse dynamics model takes at a time: a number, or what memory allows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import torch

from .pair_encoding import FrameBatch, FrameEncoder, FrameRun, PairEncoder

BatchSize: TypeAlias = int | Literal["auto"]
"""Frames at a time, or "auto": as many as memory allows."""

# Bytes of float frames at a time on a CPU, and fewest and most frames. Activations take a large multiple of it (a depth
# network's over 200 MB a frame), and larger batches are no faster: less of them stays in the caches.
CPU_FRAME_BYTES = 4 * 2**20
CPU_LIMITS = (4, 32)
# Frames at which a GPU is busy, whatever the model.
CUDA_LIMIT = 512
# Of the free memory: the rest is for frames on their way to the device, kernels' workspaces and fragmentation.
CUDA_SHARE = 0.75
TRIALS = (2, 16)


def resolve_batch_size(idm: FrameEncoder, batch_size: BatchSize) -> int:
    """Frames to compute at a time.

    Args:
        idm: Inverse dynamics model, on the device to use; its configuration says the size of a frame.
        batch_size: A number, which is kept; or "auto". On CUDA that is found from the memory that a small and a larger
            trial take and the memory that is free (PyTorch's peak statistics start anew); elsewhere from the size of a
            frame.

    Raises:
        ValueError: If it is neither a number from 1 nor "auto".
    """
    if batch_size == "auto":
        return _measured(idm) if idm.device.type == "cuda" else _by_frame_bytes(idm)
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f'batch_size: got {batch_size!r}, expected frames at a time, at least 1, or "auto"')
    return batch_size


def largest_batch(peaks: dict[int, int], free: int) -> int:
    """The batch whose memory, growing linearly, takes `CUDA_SHARE` of the free bytes; from 1 to `CUDA_LIMIT`.

    Args:
        peaks: Peak bytes of two trials, by their number of frames.
        free: Free bytes.
    """
    (few, low), (many, high) = sorted(peaks.items())
    per_frame = (high - low) / (many - few)
    if per_frame <= 0:
        return CUDA_LIMIT
    fixed = low - few * per_frame
    return min(max(1, int((CUDA_SHARE * free - fixed) / per_frame)), CUDA_LIMIT)


def _by_frame_bytes(idm: FrameEncoder) -> int:
    fitting = CPU_FRAME_BYTES // (3 * idm.config.image_size**2 * 4)
    least, most = CPU_LIMITS
    # Down to a power of two.
    return min(max(least, 1 << (max(1, fitting).bit_length() - 1)), most)


def _measured(idm: FrameEncoder) -> int:
    from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

    few, many = TRIALS
    _trial(idm, few)()  # takes what libraries keep from their first use on
    try:
        peaks = {size: _peak_bytes(_trial(idm, size), idm.device) for size in TRIALS}
    except RuntimeError as error:
        if not should_reduce_batch_size(error):
            raise
        peaks = {}
    clear_device_cache()
    return largest_batch(peaks, _free_bytes(idm.device)) if peaks else many // 2


def _trial(idm: FrameEncoder, num_frames: int) -> Callable[[], object]:
    @torch.no_grad()
    def run() -> None:
        size = idm.config.image_size
        frames = torch.zeros(num_frames, 3, size, size, dtype=torch.uint8)
        batch = FrameBatch(frames, (FrameRun(video=0, stride=1, length=num_frames),))
        for _ in PairEncoder(idm).encode(batch):
            pass

    return run


def _peak_bytes(run: Callable[[], object], device: torch.device) -> int:
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    run()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def _free_bytes(device: torch.device) -> int:
    return torch.cuda.mem_get_info(device)[0]
