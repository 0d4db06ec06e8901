"""Seeds of episodes: those of demonstrations and of evaluations never meet.

A run's seed chooses a block of 10,000 episode seeds. Demonstrations have the blocks below 1,000,000 and evaluations
those from there on, so no evaluation starts from a state that a demonstration showed.
"""

from __future__ import annotations

EPISODES_PER_SEED = 10_000
FIRST_EVALUATION_SEED = 1_000_000
_DEMONSTRATION_SEEDS = FIRST_EVALUATION_SEED // EPISODES_PER_SEED


def demonstration_seed(seed: int, episode: int) -> int:
    """Return the seed of a recorded episode, 0 to 999,999.

    Args:
        seed: Seed of the recording, 0 to 99.
        episode: Number of the episode, 0 to 9,999.

    Raises:
        ValueError: A number is outside its range.
    """
    if not 0 <= seed < _DEMONSTRATION_SEEDS:
        raise ValueError(f"seed of a recording must be 0 to {_DEMONSTRATION_SEEDS - 1}, got {seed}")
    return seed * EPISODES_PER_SEED + _checked(episode)


def evaluation_seed(seed: int, episode: int) -> int:
    """Return the seed of an evaluated episode, 1,000,000 or more.

    Args:
        seed: Seed of the evaluation, at least 0.
        episode: Number of the episode, 0 to 9,999.

    Raises:
        ValueError: A number is outside its range.
    """
    if seed < 0:
        raise ValueError(f"seed of an evaluation must be at least 0, got {seed}")
    return FIRST_EVALUATION_SEED + seed * EPISODES_PER_SEED + _checked(episode)


def _checked(episode: int) -> int:
    if not 0 <= episode < EPISODES_PER_SEED:
        raise ValueError(f"a run has at most {EPISODES_PER_SEED} episodes of a task; got number {episode}")
    return episode
