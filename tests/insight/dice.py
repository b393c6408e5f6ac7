"""Random numbers of the generator: counts around a mean."""

import random
from math import exp, sqrt

_NORMAL_FROM = 20.0


class Dice(random.Random):
    """Random numbers of one organization; the same seed gives the same ones everywhere."""

    def between(self, low: float, high: float) -> float:
        """A number whose logarithm is uniform."""
        return low * (high / low) ** self.random()

    def count(self, mean: float, shape: float = 0.0) -> int:
        """A count: Poisson, or negative binomial with a shape."""
        if mean <= 0:
            return 0
        if shape:
            mean *= self.gammavariate(shape, 1 / shape)
        if mean >= _NORMAL_FROM:
            return max(round(self.gauss(mean, sqrt(mean))), 0)
        limit, found, product = exp(-mean), 0, self.random()
        while product > limit:
            product *= self.random()
            found += 1
        return found
