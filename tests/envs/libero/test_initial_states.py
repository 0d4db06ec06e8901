"""Initial states are read without executing their pickles; anything but an array of numbers is refused."""

import os
import pickle
import zipfile

import numpy as np
import pytest
import torch

from hilam_hf.envs.libero import SUITES, libero_tasks, read_initial_states


@pytest.mark.sim
@pytest.mark.parametrize("suite", SUITES)
def test_values_are_pytorchs(suite):
    for task in libero_tasks(suite, [0, 7]):
        states = read_initial_states(task.initial_states_file)
        np.testing.assert_array_equal(states, torch.load(task.initial_states_file, weights_only=False))
        assert states.shape[0] == 50


def test_reads_what_pytorch_writes_now(tmp_path):
    states = np.arange(12.0).reshape(3, 4)
    torch.save(states, tmp_path / "states.init")
    np.testing.assert_array_equal(read_initial_states(tmp_path / "states.init"), states)


class Malicious:
    """Would make a folder when unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_code_is_refused_before_it_runs(tmp_path):
    torch.save(Malicious(tmp_path / "made"), tmp_path / "states.init")
    with pytest.raises(ValueError, match=r"asks for posix.mkdir, which no array of numbers needs"):
        read_initial_states(tmp_path / "states.init")
    torch.save(np.array([Malicious(tmp_path / "made")], dtype=object), tmp_path / "states.init")
    with pytest.raises(ValueError, match="not a file of initial states"):
        read_initial_states(tmp_path / "states.init")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros(4), r"expected a float64 array \(states, n\), got float64 \(4,\)"),
        (np.zeros((2, 3), np.float32), "values of type 'f4'"),
        (np.array([["a"]], dtype=object), "values of type 'O8'"),
        (np.array([[0.0, np.nan]]), "NaN or infinite"),
        ([1.0, 2.0], "got list"),
    ],
)
def test_other_contents_are_refused(tmp_path, value, message):
    torch.save(value, tmp_path / "states.init")
    with pytest.raises(ValueError, match=message):
        read_initial_states(tmp_path / "states.init")


def test_damaged_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent.init: there are no initial states here"):
        read_initial_states(tmp_path / "absent.init")
    (tmp_path / "text.init").write_text("no archive")
    with pytest.raises(ValueError, match=r"text.init: not a file of initial states"):
        read_initial_states(tmp_path / "text.init")
    with zipfile.ZipFile(tmp_path / "other.init", "w") as archive:
        archive.writestr("archive/other.pkl", b"")
    with pytest.raises(ValueError, match=r"one data\.pkl in the archive, got 0"):
        read_initial_states(tmp_path / "other.init")
    whole = pickle.dumps(np.zeros((2, 3)), protocol=2)
    with zipfile.ZipFile(tmp_path / "torn.init", "w") as archive:
        archive.writestr("archive/data.pkl", whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"torn.init: not a file of initial states"):
        read_initial_states(tmp_path / "torn.init")
