"""What a data set that draws its samples at random is asked for."""

from typing import NamedTuple


class SampleKey(NamedTuple):
    """What a data set that draws its samples at random is asked for (`draws_samples = True`)."""

    row: int
    """Of the data set."""
    seed: int
    """Of this sample alone: another one in every epoch, and the same one when a run is resumed."""
