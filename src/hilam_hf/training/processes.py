"""The processes of a launch, for what is done before training starts."""

from accelerate import PartialState
from accelerate.utils import parse_flag_from_env


def process_state() -> PartialState:
    """This process among those of the launch, with its device.

    accelerate's own `PartialState()`, if it is the first to ask, overlooks the launcher's choice of the CPU.
    """
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))
