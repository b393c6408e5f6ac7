"""Organizations of the generator, half of them with unusual things that carry labels."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from math import exp

from tests.insight.dice import Dice
from tests.insight.habits import PLACES, Habit, Place, draw_habit

WARM_UP = 84
JUDGED = 84
DAYS = WARM_UP + JUDGED
_TAIL = 10  # days after which nothing starts
_APART = 12  # days between the unusual things of an organization


@dataclass(frozen=True)
class Label:
    """One unusual thing: hours from ``start`` to ``end``, counted from the first day.

    ``size`` is how strong it is, in the unit of its kind; ``effect`` the tokens it added or took.
    """

    kind: str
    start: int
    end: int
    size: float
    agent: str = ""
    effect: int = 0


@dataclass
class Organization:
    """The counts of one organization: for each agent the tokens of each hour."""

    name: str
    first: date
    place: Place
    daily: float
    agents: dict[str, list[int]]
    habits: dict[str, Habit]
    labels: list[Label] = field(default_factory=list)
    is_clean: bool = True

    def day(self, number: int) -> date:
        """A day by its number."""
        return self.first + timedelta(days=number)


def organizations(seed: int, number: int) -> Iterator[Organization]:
    """The organizations of a seed."""
    for index in range(number):
        yield _organization(f"{seed}-{index}")


def _organization(name: str) -> Organization:
    dice = Dice(name)
    zone = dice.choice(list(PLACES))
    place = Place(zone, lull=dice.uniform(0.3, 0.9), left=dice.choice((0.03, 0.1, 0.25)))
    daily = dice.between(1, 1_000_000)
    most = dice.randint(1, 50) if dice.random() < 0.5 else int(dice.between(1, 51))
    size = min(most, max(int(daily), 1))
    first = date(2025, 1, 1) - timedelta(days=dice.randrange(0, 365))
    weights = [dice.lognormvariate(0, 1.2) for _ in range(size)]
    total = sum(weights)
    rests = dice.random() < 0.3
    habits = {
        f"agent-{index}": draw_habit(dice, place, daily * weight / total, rests=rests)
        for index, weight in enumerate(weights)
    }
    organization = Organization(name, first, place, daily, {}, habits)
    moods = _moods(dice)
    lives = {}
    for agent, habit in habits.items():
        begin, end = 0, DAYS
        if len(habits) > 1 and dice.random() < 0.06:
            begin = dice.randrange(1, DAYS - 7)
        elif dice.random() < 0.05:
            end = dice.randrange(WARM_UP, DAYS - 7)
        lives[agent] = begin, end
        organization.agents[agent] = _hours(dice, organization, habit, moods, (begin, end))
    for agent, (begin, end) in lives.items():
        if begin:
            _label(organization, "arrival", agent, range(begin * 24, (begin + 21) * 24))
        if end < DAYS:
            _label(organization, "agent stop", agent, range(end * 24, DAYS * 24))
    organization.is_clean = dice.random() < 0.5
    if not organization.is_clean:
        _spoil(dice, organization)
    return organization


def _moods(dice: Dice) -> list[float]:
    """The factor of each day: growth, slow wander, and noise."""
    growth = dice.uniform(-0.03, 0.08) / 7
    wander_step = dice.uniform(0.0, 0.02)
    noise = dice.uniform(0.30, 0.45) if dice.random() < 0.15 else dice.uniform(0.03, 0.22)
    wander, moods = 0.0, []
    for day in range(DAYS):
        wander = 0.97 * wander + dice.gauss(0, wander_step)
        moods.append(exp(growth * (day - DAYS / 2) + wander + dice.gauss(0, noise)))
    return moods


def _hours(
    dice: Dice, organization: Organization, habit: Habit, moods: list[float], life: tuple[int, int]
) -> list[int]:
    found: list[int] = []
    for number in range(DAYS):
        if not life[0] <= number < life[1]:
            found += [0] * 24
            continue
        if habit.kind == "on demand" and dice.random() > habit.active:
            found += [0] * 24
            continue
        expected = habit.hours(organization.day(number))
        if habit.is_cron:
            growth = moods[number] ** 0.2
            found += [dice.count(mean * growth, 60) if mean else 0 for mean in expected]
        else:
            mood = moods[number] * exp(dice.gauss(0, habit.noise))
            found += [dice.count(mean * mood, habit.shape) for mean in expected]
    return found


def _label(organization: Organization, kind: str, agent: str, hours: range) -> None:
    """Label the beginning or the end of an agent, with the tokens of its week there."""
    issued = organization.agents[agent]
    around = hours.start if kind == "arrival" else hours.start - 7 * 24
    effect = sum(issued[around : around + 7 * 24])
    organization.labels.append(Label(kind, hours.start, hours.stop, 1, agent, effect))


def _spoil(dice: Dice, organization: Organization) -> None:
    """Hide some unusual things, some days apart."""
    day = WARM_UP + dice.randrange(2, _APART)
    while day < DAYS - _TAIL:
        make = dice.choices(list(_MAKERS), [_MAKERS[one] for one in _MAKERS])[0]
        label = make(dice, organization, day)
        if label is not None:
            organization.labels.append(label)
            if label.kind in ("level up", "level down"):
                return
            day = max(day, label.end // 24)
        day += dice.randrange(_APART, 2 * _APART)


def _scaled(
    dice: Dice, organization: Organization, hours: range, factor: float, agents: list[str]
) -> int:
    """Multiply the tokens of some agents in some hours; the tokens that were added or taken."""
    effect = 0
    for agent in agents:
        issued = organization.agents[agent]
        for hour in hours:
            was = issued[hour]
            if factor > 1:
                issued[hour] = was + dice.count(was * (factor - 1))
            else:
                issued[hour] = (
                    sum(dice.random() < factor for _ in range(was))
                    if was < 50
                    else (dice.count(was * factor))
                )
            effect += abs(issued[hour] - was)
    return effect


def _spike(dice: Dice, organization: Organization, day: int) -> Label:
    size = dice.choice((2, 3, 5, 10))
    hours = range(day * 24, day * 24 + 24)
    effect = _raise(dice, organization, hours, size)
    return Label("spike", hours.start, hours.stop, size, effect=effect)


def _burst(dice: Dice, organization: Organization, day: int) -> Label:
    size = dice.choice((5, 10, 20))
    # It begins where the organization is busy: hours without tokens have nothing to multiply.
    totals = [sum(hour) for hour in zip(*organization.agents.values(), strict=True)]
    weights = [totals[day * 24 + hour] + 0.01 for hour in range(20)]
    start = day * 24 + dice.choices(range(20), weights)[0]
    hours = range(start, start + 4)
    effect = _raise(dice, organization, hours, size)
    return Label("burst", hours.start, hours.stop, size, effect=effect)


def _raise(dice: Dice, organization: Organization, hours: range, size: float) -> int:
    """More tokens for all agents, or as many more for a few of them."""
    agents = list(organization.agents)
    if dice.random() < 0.6 or len(agents) < 3:
        return _scaled(dice, organization, hours, size, agents)
    total = sum(sum(organization.agents[agent][hour] for agent in agents) for hour in hours)
    few = dice.sample(agents, 2)
    effect = 0
    for agent in few:
        for hour in hours:
            more = dice.count(total * (size - 1) / len(few) / len(hours))
            organization.agents[agent][hour] += more
            effect += more
    return effect


def _usual_day(organization: Organization, agent: str, day: int) -> float:
    issued = organization.agents[agent]
    days = [sum(issued[one * 24 : one * 24 + 24]) for one in range(day - 28, day)]
    active = [count for count in days if count]
    return sum(active) / len(active) if len(active) >= 8 else 0.0


def _loop(dice: Dice, organization: Organization, day: int) -> Label | None:
    agent = dice.choice(list(organization.agents))
    mean = _usual_day(organization, agent, day)
    if not mean:
        return None
    size, length = dice.choice((5, 10, 30, 100)), dice.choice((3, 8, 24))
    start = day * 24 + dice.randrange(24 - length + 1)
    effect = 0
    for hour in range(start, start + length):
        more = dice.count(mean * size / length)
        organization.agents[agent][hour] += more
        effect += more
    return Label("loop", start, start + length, size, agent, effect)


def _outage(dice: Dice, organization: Organization, day: int) -> Label | None:
    length = dice.choice((2, 8, 24, 72))
    start = day * 24 + dice.randrange(24)
    left = dice.choice((0.0, 0.02))
    hours = range(start, start + length)
    effect = _scaled(dice, organization, hours, left, list(organization.agents))
    return Label("outage", hours.start, hours.stop, length, effect=effect)


def _pause(dice: Dice, organization: Organization, day: int) -> Label | None:
    """An agent pauses for days, or misses a run."""
    regular = [
        agent
        for agent, habit in organization.habits.items()
        if habit.kind not in ("on demand", "monthly")
        and sum(organization.agents[agent][(day - 56) * 24 : (day - 49) * 24])
        and sum(organization.agents[agent][(day - 7) * 24 : day * 24])
    ]
    if not regular or len(organization.agents) < 2:
        return None
    agent = dice.choice(regular)
    days = dice.choice((1, 2, 4, 7)) if organization.habits[agent].kind != "weekly" else 7
    hours = range(day * 24, (day + days) * 24)
    effect = _scaled(dice, organization, hours, 0.0, [agent])
    return Label("agent pause", hours.start, hours.stop, days, agent, effect)


def _leak(dice: Dice, organization: Organization, day: int) -> Label | None:
    """A credential is used in hours that are always empty, of all agents or of one."""
    agents = [
        agent
        for agent, habit in organization.habits.items()
        if habit.kind not in ("on demand", "monthly")
        and sum(organization.agents[agent][(day - 56) * 24 : (day - 28) * 24])
    ]
    if not agents:
        return None
    agent = dice.choice(agents)
    whole = [sum(hour) for hour in zip(*organization.agents.values(), strict=True)]
    for kind, counts in (("leak", whole), ("own leak", organization.agents[agent])):
        empty = [
            hour
            for hour in range(24)
            if not any(
                sum(counts[at - 2 : at + 4])
                for at in ((day - 7 * week) * 24 + hour for week in range(9))
            )
        ]
        if empty:
            size = round(dice.between(3, 100))
            start = day * 24 + dice.choice(empty)
            for _ in range(size):
                organization.agents[agent][start + dice.randrange(2)] += 1
            return Label(kind, start, start + 2, size, agent, size)
    return None


def _level(dice: Dice, organization: Organization, day: int) -> Label:
    size = dice.choice((2.0, 3.0, 0.5, 0.33))
    hours = range(day * 24, DAYS * 24)
    _scaled(dice, organization, hours, size, list(organization.agents))
    effect = round(organization.daily * 7)
    kind = "level up" if size > 1 else "level down"
    return Label(kind, hours.start, hours.stop, size, effect=effect)


_MAKERS = {
    _spike: 22,
    _burst: 14,
    _loop: 20,
    _outage: 22,
    _pause: 10,
    _leak: 14,
    _level: 10,
}
