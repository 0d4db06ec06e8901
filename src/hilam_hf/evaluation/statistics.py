"""Success rates, and differences of paired ones, with the interval that the number of episodes allows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
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
class PairedCounts:
    """Outcomes of the same episodes under two policies, a and b.

    Attributes:
        both: Episodes that both solved.
        only_a: Episodes that a alone solved.
        only_b: Episodes that b alone solved.
        neither: Episodes that none solved.
    """

    both: int
    only_a: int
    only_b: int
    neither: int

    def __post_init__(self) -> None:
        if min(self.both, self.only_a, self.only_b, self.neither) < 0 or not self.pairs:
            raise ValueError(f"expected counts of at least 0 and at least one pair, got {self}")

    @property
    def pairs(self) -> int:
        """Number of episodes."""
        return self.both + self.only_a + self.only_b + self.neither

    @property
    def difference(self) -> float:
        """Success rate of b minus that of a, -1 to 1."""
        return (self.only_b - self.only_a) / self.pairs

    @property
    def p_value(self) -> float:
        """Two-sided exact McNemar test (1947) of no difference.

        Among the episodes that one alone solved, each of both is equally likely: a binomial with rate 1/2.
        """
        discordant = self.only_a + self.only_b
        fewer = min(self.only_a, self.only_b)
        tail = sum(math.comb(discordant, count) for count in range(fewer + 1))
        return float(min(Fraction(1), Fraction(2 * tail, 2**discordant)))

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Return the interval of `difference` by method 10 of Newcombe (1998), Statistics in Medicine 17, 2635-2650.

        Wilson's intervals of both rates are combined under the outcomes' correlation phi, in whose numerator a
        positive product is corrected for continuity by half the number of pairs. It stays within [-1, 1] and has a
        width even where no episode differs.

        Args:
            confidence: Coverage, within (0, 1).

        Raises:
            ValueError: The confidence is outside its range.
        """
        n = self.pairs
        solved_a, solved_b = self.both + self.only_a, self.both + self.only_b
        low_a, high_a = wilson_interval(solved_a, n, confidence)
        low_b, high_b = wilson_interval(solved_b, n, confidence)
        below_a, above_a = solved_a / n - low_a, high_a - solved_a / n
        below_b, above_b = solved_b / n - low_b, high_b - solved_b / n
        phi = self._correlation()
        lower = math.sqrt(max(0.0, below_b**2 - 2 * phi * below_b * above_a + above_a**2))
        upper = math.sqrt(max(0.0, above_b**2 - 2 * phi * above_b * below_a + below_a**2))
        return self.difference - lower, self.difference + upper

    def _correlation(self) -> float:
        """Newcombe's phi; 0 where a policy solved all episodes or none."""
        solved_a, solved_b = self.both + self.only_a, self.both + self.only_b
        spread = solved_a * (self.pairs - solved_a) * solved_b * (self.pairs - solved_b)
        product: float = self.both * self.neither - self.only_a * self.only_b
        if product > 0:
            product = max(product - self.pairs / 2, 0)
        return product / math.sqrt(spread) if spread else 0.0


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
