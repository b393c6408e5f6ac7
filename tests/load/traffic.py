"""The events of a load run, the same for the sending process and the checking one."""

import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import msgspec

from app.intake.events import Event

LATE = 0.1
LATE_DAYS = 60


class Scale(msgspec.Struct, frozen=True):
    """How much history there is: an event of every agent of every tenant on every day."""

    tenants: int = 20
    agents: int = 50
    days: int = 90

    def tenant_ids(self) -> list[str]:
        return [f"org-{number}" for number in range(self.tenants)]


class Batch(msgspec.Struct, frozen=True):
    """The recipe of one batch: whoever reads it makes the same events."""

    name: str
    size: int
    at: datetime

    def events(self, scale: Scale) -> list[Event]:
        """Events of several tenants, most of them of now, some late."""
        dice = random.Random(self.name)
        return [
            Event(
                f"org-{dice.randrange(scale.tenants)}",
                f"{self.name}-{number}",
                f"agent-{dice.randrange(scale.agents)}",
                self.at - timedelta(days=self._late(dice)),
            )
            for number in range(self.size)
        ]

    @staticmethod
    def _late(dice: random.Random) -> float:
        return dice.uniform(0, LATE_DAYS) if dice.random() < LATE else 0.0


class Orders(msgspec.Struct, frozen=True):
    """What the process of the clients shall do.

    ``pace``: requests per second and client; 0 means the next one at once. ``readers``: a
    token for each tenant. Every answer becomes a line of ``requests``, every acknowledged
    batch one of ``batches``.
    """

    name: str
    base: str
    scale: Scale
    readers: dict[str, str]
    writer: str
    clients: int
    pace: float
    batch: int
    requests: str
    batches: str


class Promised:
    """Every event that must be there, made anew each time one goes through them."""

    def __init__(self, scale: Scale, history: list[Event]) -> None:
        self._scale, self._history, self._batches = scale, history, list[Batch]()

    def acknowledge(self, path: Path) -> None:
        """Add what the clients wrote about acknowledged batches."""
        decode = msgspec.json.Decoder(Batch).decode
        self._batches += map(decode, path.read_bytes().splitlines())

    @property
    def acknowledged(self) -> int:
        """Events, without the history."""
        return sum(batch.size for batch in self._batches)

    def __iter__(self) -> Iterator[Event]:
        yield from self._history
        for batch in self._batches:
            yield from batch.events(self._scale)
