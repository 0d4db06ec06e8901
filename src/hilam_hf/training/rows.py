"""Some rows of a data set, as a data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.utils.data import Dataset

from ..data.samples.keys import SampleKey
from ..fingerprint import data_fingerprint


class Rows(Dataset[Any]):
    """Some rows of a data set, which keep their names and their draws.

    Args:
        dataset: Map-style data set; `draws_samples`, `sample_id` and `fingerprint` are passed on where it has them.
        rows: Rows of it, each at most once.
    """

    def __init__(self, dataset: Any, rows: Sequence[int]):
        self.dataset = dataset
        self.rows = list(rows)
        self.draws_samples = getattr(dataset, "draws_samples", False)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, item: Any) -> Any:
        if isinstance(item, SampleKey):
            return self.dataset[SampleKey(self.rows[item.row], item.seed)]
        return self.dataset[self.rows[item]]

    def sample_id(self, index: int) -> str:
        """What the data set calls one of these rows."""
        return self.dataset.sample_id(self.rows[index])

    def fingerprint(self) -> str:
        """Changes with the data set and with the rows."""
        return data_fingerprint(self.dataset.fingerprint(), self.rows)
