"""Today: the counts of the judged day, as far as they are known."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Today:
    """The counts of a day that is not over.

    Attributes:
        hours: the tokens of each hour so far; the last one may still grow. At most 24.
        agents: for each agent with a token on the day, its tokens and the mask of its hours.
        new: those of them whose first token ever is on this day.
        new_others: how many more such agents there are among the OTHERS.
        settled: the number of hours of the day that are over and delivered. Silence and recovery
            are judged at the end of each of these.
    """

    hours: Sequence[int]
    agents: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    new: Sequence[str] = ()
    new_others: int = 0
    settled: int = 0

    @property
    def total(self) -> int:
        """The day's tokens so far."""
        return sum(self.hours)
