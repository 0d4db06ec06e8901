"""Learning rates as a function of the step: the schedules of transformers."""

from collections.abc import Callable, Mapping
from typing import Any


def learning_rate_schedule(
    name: str, *, learning_rate: float, warmup_steps: int, max_steps: int, options: Mapping[str, Any]
) -> Callable[[int], float]:
    """Fraction of the peak learning rate at an optimiser step, counted from 0, as transformers has it.

    Args:
        name: The schedule.
        learning_rate: The peak.
        warmup_steps: Steps over which it rises from zero.
        max_steps: Steps of the run.
        options: What the schedule takes besides. The stable phase of "warmup_stable_decay" ends, as in H-Net's
            training, with a fifth of the steps left, and the decay follows 1 - sqrt.

    Raises:
        ValueError: The schedule does not take these options.
    """
    # They take seconds to import, and options are read before that is needed.
    import torch
    from transformers import get_scheduler

    if name == "warmup_stable_decay":
        options = {"num_decay_steps": max(1, max_steps // 5), "decay_type": "1-sqrt", **options}
    try:
        scheduler = get_scheduler(
            name,
            torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=learning_rate),
            num_warmup_steps=warmup_steps,
            num_training_steps=max_steps,
            scheduler_specific_kwargs=dict(options),
        )
    except (TypeError, ValueError) as error:
        raise ValueError(f"schedule={name} with schedule_options={dict(options)}: {error}") from error
    return scheduler.lr_lambdas[0]
