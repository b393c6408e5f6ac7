"""Charts of the pages: geometry in percent, for SVG without scripts and without inline styles."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

# A bar that is this many times as high as all others would make them invisible, so it is cut.
DWARFS = 5
_UNITS = ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k"))
_STEPS = (1, 2, 2.5, 5, 10)
_MOST_TICKS = 6


@dataclass(frozen=True)
class Bar:
    """One bar: its count, the count before behind it, and what it says when it is pointed at.

    ``lines``: the text, the first line being its name. ``href``: where it leads, or empty.
    ``kind``: ``""``, ``"spike"``, ``"silent"`` or ``"part"`` (not over yet). ``mark``: a short text
    at its top. ``tick``: its label on the axis, or empty. ``is_known``: whether its count is known,
    so that a 0 means nothing. The last line is that of ``before``, if there is one.
    """

    count: int
    lines: tuple[str, ...]
    href: str = ""
    before: int | None = None
    kind: str = ""
    mark: str = ""
    tick: str = ""
    weekend: bool = False
    is_known: bool = True

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    @property
    def counted(self) -> str:
        """The count in a table; a dash where it is not known yet."""
        return f"{self.count:,}" if self.is_known else "\N{EN DASH}"

    @property
    def note(self) -> str:
        """The note in a table: what the bar says besides its count and the one behind it."""
        kind = {"part": "so far" if self.is_known else "not counted yet"}.get(self.kind, self.kind)
        # Only unusual bars say more, because long charts have many.
        others = self.lines[2:] if self.before is None else self.lines[2:-1]
        return ", ".join((kind, *others)) if self.kind in {"spike", "silent"} else kind


@dataclass(frozen=True)
class Place:
    """The place of a bar in percent of the plot, and the bar's top."""

    bar: Bar
    left: float
    width: float
    top: float
    is_cut: bool

    @property
    def middle(self) -> float:
        return self.left + self.width / 2

    @property
    def mark(self) -> str:
        """The text at the top; a cut bar says its count, because its height does not."""
        return self.bar.mark or (short(self.bar.count) if self.is_cut else "")


@dataclass(frozen=True)
class Chart:
    """Bars with a round axis."""

    bars: Sequence[Bar]

    @cached_property
    def _step(self) -> int:
        counts = [bar.count for bar in self.bars]
        before = [bar.before for bar in self.bars if bar.before is not None]
        highest, *others = sorted(counts, reverse=True) or [0]
        rest = max([*others[:1], *before], default=0)
        # A single bar, or one beside nothing, is not cut: there is nothing that it hides.
        top = rest * DWARFS // 4 if rest and highest > DWARFS * rest else max(highest, rest)
        return _round_step(top)

    @cached_property
    def top(self) -> int:
        """The count at the upper end of the axis."""
        counts = [bar.count for bar in self.bars]
        before = [bar.before or 0 for bar in self.bars]
        ends = [count for count in [*counts, *before] if count <= self._step * _MOST_TICKS]
        return max(-(-max(ends, default=0) // self._step), 1) * self._step

    @property
    def highest(self) -> int:
        return max((bar.count for bar in self.bars), default=0)

    @property
    def ticks(self) -> list[str]:
        """The labels of the axis, from 0 upwards, at equal distances."""
        return [short(count) for count in range(0, self.top + 1, self._step)]

    @property
    def lines(self) -> list[float]:
        """The heights of the gridlines in percent from the top, without the base."""
        count = self.top // self._step
        return [100 * number / count for number in range(count)]

    @property
    def has_before(self) -> bool:
        return any(bar.before is not None for bar in self.bars)

    def has(self, kind: str) -> bool:
        """Whether a bar is of this kind."""
        return any(bar.kind == kind for bar in self.bars)

    @property
    def slot(self) -> float:
        """The width of a bar's place."""
        return 100 / max(len(self.bars), 1)

    @property
    def weekend_path(self) -> str:
        """The places of weekends, in a box that is ten wide for each bar and one high."""
        places = enumerate(self.bars)
        return "".join(f"M{number * 10} 0h10v1h-10z" for number, bar in places if bar.weekend)

    @cached_property
    def places(self) -> list[Place]:
        width = self.slot
        return [
            Place(bar, number * width, width, self._from_top(bar.count), bar.count > self.top)
            for number, bar in enumerate(self.bars)
        ]

    @property
    def before_path(self) -> str:
        """The bars behind, as one shape in a box that is ten wide for each bar and 100 high."""
        heights = (100 if bar.before is None else self._from_top(bar.before) for bar in self.bars)
        return f"M0 100{''.join(f'V{height:g}h10' for height in heights)}V100z"

    @property
    def tops_path(self) -> str:
        """The upper edges of the bars behind."""
        return "".join(
            f"M{number * 10 + 0.5:g} {self._from_top(bar.before):g}h9"
            for number, bar in enumerate(self.bars)
            if bar.before is not None
        )

    def _from_top(self, count: int) -> float:
        return round(100 - 100 * min(count, self.top) / self.top, 1)


def short(count: int) -> str:
    """A count in a few characters: ``950``, ``1.05k``, ``12.5M``."""
    size, unit = next(((size, unit) for size, unit in _UNITS if count >= size), (1, ""))
    return f"{count * 100 // size / 100:g}{unit}"


def spark_path(counts: Sequence[int], highest: int) -> str:
    """A sparkline as a path of lines, one unit apart, in a box that is 12 high."""
    return "".join(
        f"M{place} 12V{_spark_top(count, highest)}" for place, count in enumerate(counts) if count
    )


def _spark_top(count: int, highest: int) -> str:
    # In half units, and at least one of them, because a count is not nothing.
    return f"{12 - max(24 * count // highest, 1) / 2:g}".replace("0.5", ".5")


def _round_step(top: int) -> int:
    """The distance of the gridlines: 1, 2, 2.5 or 5 times a power of ten, so that few suffice."""
    size = 1
    while True:
        for step in _STEPS:
            whole = step * size
            if whole == int(whole) and top <= whole * (_MOST_TICKS - 1):
                return int(whole)
        size *= 10
