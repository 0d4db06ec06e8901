"""How a command that fails ends: one line on standard error and a non-zero code; HILAM_DEBUG=1 shows the traceback."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.errors import StrictDataclassError

from ..envs.workers import WorkerError

_BAD_INPUT = (ValueError, OSError, ImportError, StrictDataclassError, WorkerError, RecursionError, MemoryError)
# By name, since a command imports only the libraries that it needs.
_BAD_INPUT_OF_LIBRARIES = frozenset(
    {
        "_pickle.UnpicklingError",
        "datasets.exceptions.DatasetsError",
        "httpx.HTTPError",
        "pyarrow.lib.ArrowException",
        "safetensors._safetensors_rust.SafetensorError",
        "safetensors.SafetensorError",
        "torch.OutOfMemoryError",
        "yaml.error.YAMLError",
    }
)
# What these say is in the error that they come from.
_WRAPPERS = frozenset({"datasets.exceptions.DatasetGenerationError"})
_SAYS_LITTLE: dict[type[Exception], str] = {
    RecursionError: "what was read is nested too deeply; give a file that is not",
    MemoryError: "memory ran out; choose smaller sizes",
}
_FLAG = re.compile(r"\b(resume|overwrite)=True\b")


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Ends the process with code 1 and one line where the block fails.

    What bad input causes is said as it is, in the words of the command line. Anything else is a fault of this library
    and is called one.
    """
    try:
        yield
    except Exception as error:
        if os.environ.get("HILAM_DEBUG"):
            raise
        print(f"error: {describe(error)}", file=sys.stderr)
        sys.exit(1)


def describe(error: Exception) -> str:
    """Says in one line what went wrong.

    Args:
        error: What a command raised.

    Returns:
        Its message, or for an error that no input should cause, that it is a fault and what to report.

    Example:
        >>> describe(ValueError("the corpus is there: pass overwrite=True to replace it"))
        'the corpus is there: pass --overwrite to replace it'
    """
    if error.__cause__ is not None and _names(error) & _WRAPPERS:
        return describe(error.__cause__)  # type: ignore[arg-type]
    if isinstance(error, _BAD_INPUT) or _names(error) & _BAD_INPUT_OF_LIBRARIES:
        return _FLAG.sub(r"--\1", _message(error))
    return (
        f"hilam-hf has a bug ({type(error).__name__}: {_message(error)}); please open an issue of hilam-hf with the "
        "command and the traceback that HILAM_DEBUG=1 shows"
    )


def _names(error: Exception) -> set[str]:
    return {f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__}


def _message(error: Exception) -> str:
    for kind, words in _SAYS_LITTLE.items():
        if isinstance(error, kind):
            return words
    return " ".join(str(error).split()) or type(error).__name__
