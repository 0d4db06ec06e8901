"""Success rates with the interval that the number of episodes allows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the Wilson score interval of a proportion (Wilson 1927).

    With rate p of n trials and the normal quantile z, the bounds are
    `(p + z²/2n ± z sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n)`. Unlike the normal approximation it stays within [0, 1] and
    has a width even where all trials or none succeed.

    Args:
        successes: Number of successes, 0 to `trials`.
        trials: Number of independent trials, at least 1.
        confidence: Coverage, within (0, 1).

    Returns:
        Lower and upper bound, each within [0, 1].

    Raises:
        ValueError: A number is outside its range.

    Example:
        >>> [round(bound, 3) for bound in wilson_interval(8, 10)]
        [0.49, 0.943]
    """
    if trials < 1:
        raise ValueError(f"trials must be at least 1, got {trials}")
    if not 0 <= successes <= trials:
        raise ValueError(f"successes must be between 0 and trials={trials}, got {successes}")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must be within (0, 1), such as 0.95; got {confidence}")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    rate = successes / trials
    scale = 1 + z**2 / trials
    center = (rate + z**2 / (2 * trials)) / scale
    margin = z / scale * math.sqrt(rate * (1 - rate) / trials + z**2 / (4 * trials**2))
    # Exact at the ends, where rounding would leave 1e-17 and 0.9999999999999999.
    lower = 0.0 if successes == 0 else center - margin
    upper = 1.0 if successes == trials else center + margin
    return lower, upper


@dataclass(frozen=True)
class SuccessRate:
    """Successes out of independent trials.

    Attributes:
        successes: Number of successes.
        trials: Number of trials, at least 1.
        confidence: Coverage of the interval.
    """

    successes: int
    trials: int
    confidence: float = 0.95

    def __post_init__(self) -> None:
        # The interval checks all three numbers.
        wilson_interval(self.successes, self.trials, self.confidence)

    @property
    def rate(self) -> float:
        """Proportion of successes, 0 to 1."""
        return self.successes / self.trials

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson score interval of the proportion."""
        return wilson_interval(self.successes, self.trials, self.confidence)

    def to_dict(self) -> dict[str, float | int | list[float]]:
        """Return what `results.json` holds of a rate."""
        return {
            "success_rate": self.rate,
            "successes": self.successes,
            "episodes": self.trials,
            "interval": list(self.interval),
            "confidence": self.confidence,
        }

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"{100 * self.rate:.0f} % ({self.successes}/{self.trials}, "
            f"{100 * self.confidence:g} % interval {100 * low:.0f}-{100 * high:.0f} %)"
        )
