"""LIBERO's fixed initial states, read without executing what a pickle may hold.

The files are PyTorch archives with one pickled NumPy array. Only the four names that such an array needs are resolved;
anything else is refused before it is called.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LARGEST_BYTES = 64 * 2**20
_DAMAGED = (pickle.UnpicklingError, zipfile.BadZipFile, ValueError, EOFError, IndexError, KeyError, TypeError)
# Stands for the class `numpy.ndarray`, which is only named, never called.
_ARRAY_CLASS = "numpy.ndarray"


def read_initial_states(file: str | Path) -> NDArray[np.float64]:
    """Read the initial states of a task.

    Args:
        file: A `.pruned_init` or `.init` file of LIBERO.

    Returns:
        float64 (states, n): time, positions and velocities of the simulator, one initial state a row.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no archive of one array of finite numbers, or holds anything else.

    Example:
        >>> read_initial_states(parse_task("libero_goal/0").initial_states_file).shape[0]
        50
    """
    path = Path(file)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there are no initial states here; reinstall hf-libero")
    try:
        states = _ArrayUnpickler(io.BytesIO(_pickled(path))).load()
    except _DAMAGED as error:
        raise ValueError(f"{path}: not a file of initial states ({error}); reinstall hf-libero") from error
    if not isinstance(states, np.ndarray) or states.dtype != np.float64 or states.ndim != 2:
        found = f"{states.dtype} {states.shape}" if isinstance(states, np.ndarray) else type(states).__name__
        raise ValueError(f"{path}: expected a float64 array (states, n), got {found}")
    if not np.isfinite(states).all():
        raise ValueError(f"{path}: the initial states hold NaN or infinite values")
    return states


def _pickled(path: Path) -> bytes:
    with zipfile.ZipFile(path) as archive:
        members = [entry for entry in archive.infolist() if entry.filename.endswith("/data.pkl")]
        if len(members) != 1:
            raise ValueError(f"expected one data.pkl in the archive, got {len(members)}")
        if members[0].file_size > _LARGEST_BYTES:
            raise ValueError(f"{members[0].file_size} bytes is too large")
        return archive.read(members[0])


class _ArrayUnpickler(pickle.Unpickler):
    """Resolves the names that a pickled NumPy array of numbers needs, and no others."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in (("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct")):
            return _empty_array
        if (module, name) == ("numpy", "ndarray"):
            return _ARRAY_CLASS
        if (module, name) == ("numpy", "dtype"):
            return _number_type
        if (module, name) == ("_codecs", "encode"):
            return _latin1_bytes
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no array of numbers needs")


def _empty_array(kind: Any, shape: tuple[int, ...], code: bytes) -> NDArray[Any]:
    """What NumPy's own function does before the array's state is set."""
    if kind is not _ARRAY_CLASS or shape != (0,):
        raise pickle.UnpicklingError(f"it asks for an array of type {kind!r} and shape {shape!r}")
    return np.ndarray(shape, np.int8)


def _number_type(code: str, *flags: Any) -> np.dtype[Any]:
    if code != "f8":
        raise pickle.UnpicklingError(f"it holds values of type {code!r}, expected f8")
    # A copy, since unpickling sets its state.
    return np.dtype(code, align=False, copy=True)


def _latin1_bytes(text: str, encoding: str = "latin1") -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it encodes bytes as {encoding!r}")
    return text.encode("latin1")
