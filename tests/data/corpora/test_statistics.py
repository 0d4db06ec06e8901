import numpy as np
import pytest

from hilam_hf.data.corpora.statistics import RunningStatistics


def test_blocks_give_the_moments_of_the_whole() -> None:
    values = np.random.default_rng(0).normal(loc=1e6, scale=[1e-2, 1.0, 100.0], size=(1000, 3))
    statistics = RunningStatistics(3)
    for block in np.split(values, [1, 1, 10, 700]):
        statistics.update(block)
    assert statistics.count == 1000
    np.testing.assert_allclose(statistics.mean, values.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(statistics.std, values.std(axis=0), rtol=1e-6)


def test_no_vectors() -> None:
    with pytest.raises(ValueError, match="no vectors"):
        _ = RunningStatistics(2).std
