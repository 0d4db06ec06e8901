"""Which of a launch's processes speaks."""

import logging
import os
import sys
import warnings


def leave_speaking_to_the_main_process() -> None:
    """Lets a process that is not the main one of a launch show errors alone: no warnings and no progress bars.

    All processes read the same files and make the same models, so that each would say the same. Our own bars ask
    which process this is; those of the libraries do not.
    """
    # By the variable, as asking torch would start the processes' connection for commands that need none.
    if os.environ.get("RANK", "0") == "0":
        return
    import datasets
    import transformers
    from huggingface_hub.utils import disable_progress_bars

    logging.getLogger().setLevel(logging.ERROR)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    datasets.utils.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    disable_progress_bars()
