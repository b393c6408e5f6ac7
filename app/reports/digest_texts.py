"""A digest as text, Markdown and HTML, by templates that need no request.

The HTML is for mail: tables with widths and colours, no script, no image, no style sheet. Names and
ids are untrusted: each form escapes them, and cuts long ones.
"""

import re
from collections.abc import Callable
from datetime import date
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from app.reports.digest import MONTHLY, Digest, DigestBudget
from app.reports.trend import DayCount

# The last one is for chats.
FORMS = ("text", "markdown", "html", "brief")
_FILES = {
    "text": "digest.txt",
    "markdown": "digest.md",
    "html": "digest.html",
    "brief": "digest.brief.txt",
}
# Code points of a name or id that are shown.
_MOST_SHOWN = 60
_BAR = 24  # characters of the longest bar
_BLOCK, _PARTS = "\N{FULL BLOCK}", " ▏▎▍▌▋▊▉"
_DOTS, _MINUS = "\N{HORIZONTAL ELLIPSIS}", "\N{MINUS SIGN}"
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July", "August"),
    *("September", "October", "November", "December"),
)
# What Markdown, or HTML in it, reads as something else than text: also a bare address, and the
# beginning of a list or of a heading.
_MARKUP = re.compile(
    r"([\\`*_{}\[\]<>|~&@$]|:(?=//)|(?<=www)\.|^[-+#=]|(?<=^\d)[.)]|(?<=^\d\d)[.)])"
)


def digest_text(digest: Digest, form: str, base_url: str | None = None) -> str:
    """The digest in a form, one of FORMS, with a line feed at the end.

    Args:
        base_url: of the dashboard, for links, without a slash at its end; ``None`` for no links.
    """
    highest = max((point.count for point in digest.data), default=0)
    page = _environment(form).get_template(_FILES[form])
    text = page.render(
        digest=digest,
        period=digest.period,
        heading=heading(digest),
        days=[_Row(digest, place, point, highest) for place, point in enumerate(digest.data)],
        base_url=base_url,
    )
    return f"{text.strip()}\n"


def subject(digest: Digest) -> str:
    """The subject of a message: whose, which and how much."""
    change = "" if digest.change is None else f", {_change(digest.change)}"
    total = _count_of(digest.token_count, "token")
    return f"{_plain(digest.tenant_id)}: {total} in {heading(digest)}{change}"


def heading(digest: Digest) -> str:
    """``week 14 of 2026`` or ``March 2026``."""
    period = digest.period
    if period.kind == MONTHLY:
        return f"{_MONTHS[period.first.month - 1]} {period.first.year}"
    year, week = period.name.split("-W")
    return f"week {int(week)} of {year}"


class _Row:
    """A day of the chart, with the day before it that it is compared with."""

    def __init__(self, digest: Digest, place: int, point: DayCount, highest: int) -> None:
        self.date, self.count = point.date, point.count
        self.part = point.count / highest if highest else 0.0
        before = digest.data_before
        # The days of two months have no common weekday.
        is_compared = digest.period.kind != MONTHLY and place < len(before)
        self.before = before[place].count if is_compared else None

    @property
    def percent(self) -> int:
        """The width of the bar; at least 1 for a token."""
        return max(round(100 * self.part), 1 if self.count else 0)

    @property
    def bar(self) -> str:
        """The bar as block characters, of a fixed width."""
        eighths = max(round(8 * _BAR * self.part), 1 if self.count else 0)
        whole, rest = divmod(eighths, 8)
        return f"{_BLOCK * whole}{_PARTS[rest] if rest else ''}".ljust(_BAR)


@cache
def _environment(form: str) -> Environment:
    # Text and Markdown have filters of their own for every name.
    environment = Environment(
        loader=PackageLoader("app.reports"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    name, sentence = _NAMES[form]
    environment.filters.update({each.__name__[1:]: each for each in _FILTERS})
    environment.filters |= {
        "name": name,
        "sentence": sentence,
        "agent": lambda one: name(one.agent_name or one.agent_id),
    }
    return environment


def _visible(text: str) -> str:
    """Text without characters that a terminal or a reader would not show as they are."""
    return "".join(each if each.isprintable() else f"\\u{{{ord(each):x}}}" for each in text)


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_SHOWN else f"{text[: _MOST_SHOWN - 1]}{_DOTS}"


def _plain(text: str) -> str:
    return _visible(_cut(text))


def _escaped(text: str) -> str:
    return _MARKUP.sub(r"\\\1", _visible(text))


def _markdown(text: str) -> str:
    return _escaped(_cut(text))


def _html(text: str) -> Markup:
    return _isolated(_cut(text))


def _isolated(text: str) -> Markup:
    """Text that keeps its direction to itself."""
    return Markup('<bdi style="unicode-bidi:isolate">{}</bdi>').format(text)


def _number(value: float) -> str:
    return f"{value:,.0f}"


def _count_of(value: int, thing: str) -> str:
    return f"{value:,} {thing}{'' if value == 1 else 's'}"


def _change(value: float) -> str:
    return f"{100 * value:+,.1f} %".replace("-", _MINUS)


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"


def _money(value: float, currency: str) -> str:
    return f"{value:,.2f} {currency}"


def _day(value: date) -> str:
    return f"{_DAYS[value.weekday()]} {_short_day(value)}"


def _short_day(value: date) -> str:
    return f"{value.day} {_MONTHS[value.month - 1][:3]}"


def _budget(one: DigestBudget) -> str:
    """What is used of a budget, and where that leads."""
    text = f"{one.tokens:,} a {one.period}"
    if one.used is not None:
        text += f": {one.used:,} used ({100 * one.used / one.tokens:,.0f} %)"
    if one.crosses_on is not None and one.projected is not None:
        reached = "crossed" if one.used is not None and one.used > one.tokens else "will be crossed"
        text += f", {reached} on {_short_day(one.crosses_on)}, {one.projected:,} expected"
    elif one.projected is not None:
        text += f", {one.projected:,} expected"
    if one.exceeded_days:
        text += f"; exceeded on {_count_of(one.exceeded_days, 'day')} of this digest"
    return text


_FILTERS: tuple[Callable[..., str], ...] = (
    *(_number, _count_of, _change, _share, _money, _day, _short_day, _budget),
)
# How a form shows names and ids, and sentences with names in them.
_NAMES: dict[str, tuple[Callable[[str], str], Callable[[str], str]]] = {
    "text": (_plain, _visible),
    "markdown": (_markdown, _escaped),
    "html": (_html, _isolated),
    "brief": (_plain, _visible),
}
