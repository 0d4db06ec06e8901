"""How a command that does not finish ends: one line on standard error and an exit code that scripts can go by.

1 is a failure, of which HILAM_DEBUG=1 shows the traceback, and 75 a training run that a signal ended and that can be
resumed.
"""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.errors import StrictDataclassError

from ..envs.workers import WorkerError

_BAD_INPUT = (ValueError, OSError, ImportError, StrictDataclassError, WorkerError, RecursionError, MemoryError)
# By name, since a command imports only the libraries that it needs.
_BAD_INPUT_BY_NAME = frozenset(
    {
        "_pickle.UnpicklingError",
        "datasets.exceptions.DatasetsError",
        "hilam_hf.training.errors.TrainingError",
        "httpx.HTTPError",
        "pyarrow.lib.ArrowException",
        "safetensors._safetensors_rust.SafetensorError",
        "safetensors.SafetensorError",
        "torch.OutOfMemoryError",
        "yaml.error.YAMLError",
    }
)
_INTERRUPTIONS = frozenset({"hilam_hf.training.errors.TrainingInterrupted"})
# EX_TEMPFAIL of sysexits.h: try again later. No library here ends with it, and shells and SLURM leave it to programs.
RESUMABLE = 75
# What these say is in the error that they come from.
_WRAPPERS = frozenset({"datasets.exceptions.DatasetGenerationError"})
_SAYS_LITTLE: dict[type[Exception], str] = {
    RecursionError: "what was read is nested too deeply; give a file that is not",
    MemoryError: "memory ran out; choose smaller sizes",
}
_FLAG = re.compile(r"\b(resume|overwrite)=True\b")


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Ends the process with one line, and code 1 where the block fails or `RESUMABLE` where a run was interrupted.

    What bad input causes is said as it is, in the words of the command line. Anything else is a fault of this library
    and is called one. What another process of a launch says is not said twice.
    """
    try:
        yield
    except Exception as error:
        was_interrupted = bool(_names(error) & _INTERRUPTIONS)
        if os.environ.get("HILAM_DEBUG") and not was_interrupted:
            raise
        if not getattr(error, "told_by_another", False):
            print(f"{'interrupted' if was_interrupted else 'error'}: {describe(error)}", file=sys.stderr)
        sys.exit(RESUMABLE if was_interrupted else 1)


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
    if isinstance(error, _BAD_INPUT) or _names(error) & (_BAD_INPUT_BY_NAME | _INTERRUPTIONS):
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
