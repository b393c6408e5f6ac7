"""Sentences: a finding in words, written when it is read, so that it has the agents' names."""

from datetime import date, datetime, timedelta

from app.detection.findings import Finding, Kind, Part, Range
from app.detection.series import Options

_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
_TO = "\N{EN DASH}"
_MONTH_DAYS = 30
_DAY = timedelta(days=1)
_MOMENT = timedelta(microseconds=1)


def summary(finding: Finding, options: Options) -> str:
    """One sentence with the finding's numbers; ``options`` has the agents' names and the price."""
    text = _SUMMARIES[finding.kind](finding, options)
    if finding.part is Part.MORE:
        return f"{_count(finding.collected, 'more finding')} like this one: {text}"
    return text


def advice(finding: Finding) -> str:
    """What to do, and the heading of docs/insight.md that says what to check."""
    return f"{_ADVICE[finding.kind]} See docs/insight.md#{finding.kind}."


# Where docs/insight.md says more: the heading's anchor, which is the kind's name.
_ADVICE = {
    Kind.SPIKE: "Check deployments of that day, and whether the agents named keep their tokens.",
    Kind.RETRY_LOOP: "Check the agent's log for errors: it may ask again for each failed call, or"
    " not keep its token.",
    Kind.SILENCE: "Check whether it runs and can reach the identity provider; if it was a day off,"
    " add it to the days off.",
    Kind.UNUSUAL_HOUR: "Ask the agent's owner; if nobody expects it, rotate its credential.",
    Kind.LEVEL_SHIFT: "Check the deployment that began it; if it is meant, acknowledge it.",
    Kind.CONCENTRATION: "Check whether the agent keeps its token until it expires.",
    Kind.NEW_AGENT: "Check that its owner registered it.",
    Kind.DORMANT_AGENT: "Remove the agent and its credential if it is not needed any more.",
    Kind.TOKEN_WASTE: "Let the agent keep its token until shortly before it expires.",
    Kind.BUDGET: "See which agents use most, let them keep their tokens, or set another budget.",
}


def _spike(finding: Finding, options: Options) -> str:
    usual = finding.usual or Range(0, 0, 0)
    when = f"{_day(finding.end - _MOMENT)}: {_count(finding.observed, 'token')}"
    if finding.detail == "burst":
        start = max(finding.start, finding.end - timedelta(hours=3))
        text = f"{when} from {start:%H} to {_hour(finding.end)}, usually {_between(usual)}"
    else:
        weekday = _weekday(finding.end - _MOMENT)
        by = f" by {_clock(finding.end)}" if finding.end.hour else ""
        text = f"{when}{by}, usually {_between(usual)} on a whole {weekday}"
    if finding.agents:
        first = finding.agents[0]
        text += f"; {_name(first.agent_id, options)} made {_percent(first.share)} of the excess"
    return text + "."


def _loop(finding: Finding, options: Options) -> str:
    usual = finding.usual.typical if finding.usual else 0
    by = f" by {_clock(finding.end)}" if finding.end.hour else ""
    times = f", {finding.observed / usual:.0f} times as many" if usual else ""
    return (
        f"{_day(finding.end - _MOMENT)}: {_name(finding.agent, options)} was issued"
        f" {_count(finding.observed, 'token')}{by}, usually {usual:,} on a whole day{times}."
    )


def _silence(finding: Finding, options: Options) -> str:
    usual = finding.usual or Range(0, 0, 0)
    if finding.part is Part.SEVERAL:
        names = ", ".join(_name(one.agent_id, options) for one in finding.agents[:3])
        return (
            f"{_day(finding.start)}: {finding.collected} agents were issued"
            f" {_count(finding.observed, 'token')}, usually {usual.typical:,}, such as {names}."
        )
    name = f"{_name(finding.agent, options)}: " if finding.agent else ""
    seen = "no token" if not finding.observed else _count(finding.observed, "token")
    if finding.scope == "agent":
        since = _day(finding.start)
    else:
        since = f"{_day(finding.start)}, {_clock(finding.start)}"
    holiday = "; as on a weekend: a day off?" if finding.detail == "day off" else ""
    text = f"{seen} since {since}; {usual.typical:,} are usual (least in 8 weeks: {usual.low:,})"
    return name + (text if name else text[0].upper() + text[1:]) + holiday + "."


def _unusual_hour(finding: Finding, options: Options) -> str:
    end, name = finding.end, _name(finding.agent, options)
    when = f"{_day(end - _MOMENT)}, {end - timedelta(hours=1):%H}{_TO}{_hour(end)}"
    if finding.detail == "own hours":
        return (
            f"{when}: {name} was issued tokens in an hour of the week that it has not used for"
            f" 8 weeks ({finding.observed:,} on the whole day)."
        )
    return f"{when}: {_count(finding.observed, 'token')} in hours empty for 8 weeks: {name}."


def _shift(finding: Finding, options: Options) -> str:
    usual = finding.usual.typical if finding.usual else 0
    factor = finding.observed / max(usual, 1)
    text = (
        f"{_count(finding.observed, 'token')} in the 7 days to {_day(finding.end - _MOMENT)},"
        f" {factor:.1f} times the {usual:,} of the weeks before"
    )
    if finding.agents:
        first = finding.agents[0]
        text += f"; {_name(first.agent_id, options)} made {_percent(first.share)} of the change"
    return text + "."


def _concentration(finding: Finding, options: Options) -> str:
    share = finding.agents[0].share if finding.agents else 0.0
    month = finding.end - _MOMENT
    return (
        f"{_name(finding.agent, options)} has {_percent(share)} of the tokens of"
        f" {_MONTHS[month.month - 1]} {month.year} so far: {finding.observed:,}."
    )


def _new(finding: Finding, options: Options) -> str:
    day = _day(finding.start)
    if finding.part is Part.SEVERAL:
        names = ", ".join(_name(one.agent_id, options) for one in finding.agents[:3])
        return (
            f"{day}: {finding.collected:,} agents were issued their first token, such as {names}."
        )
    hours = " in hours empty for 8 weeks" if finding.severity.rank else ""
    return (
        f"{day}: {_name(finding.agent, options)} was issued its first token{hours}"
        f" ({finding.observed:,} on the day)."
    )


def _dormant(finding: Finding, options: Options) -> str:
    days = (finding.end - finding.start) // _DAY
    return (
        f"{_name(finding.agent, options)} has not been issued a token for {days} days, since"
        f" {_day(finding.start - _MOMENT)}."
    )


def _waste(finding: Finding, options: Options) -> str:
    needed = finding.usual.typical if finding.usual else 0
    days = 7
    avoidable = round((finding.observed - needed) * _MONTH_DAYS / days)
    text = (
        f"{_name(finding.agent, options)} was issued {round(finding.observed / days):,} tokens a"
        f" day; {max(round(needed / days), 1):,} are enough if it keeps them. {avoidable:,} are"
        " avoidable a month"
    )
    if options.price_per_thousand is not None:
        cost = avoidable / 1000 * options.price_per_thousand
        text += f", {cost:,.2f} {options.currency}".rstrip()
    return text + "."


def _budget(finding: Finding, options: Options) -> str:
    numbers = finding.budget
    if numbers is None:
        return f"{_count(finding.observed, 'token')} of a budget."
    whose = f"{_name(finding.agent, options)}: " if finding.agent else ""
    of_period = (
        _day(finding.start)
        if numbers.period == "day"
        else f"{_MONTHS[finding.start.month - 1]} {finding.start.year}"
    )
    used = finding.observed / numbers.tokens
    text = (
        f"{whose}{_percent(used)} of the budget of {of_period} are used:"
        f" {finding.observed:,} of {_count(numbers.tokens, 'token')}"
    )
    if finding.detail == "all":
        return f"{text}; {numbers.projected:,} are expected by its end."
    if numbers.crosses_on is None:
        return f"{text}; {numbers.projected:,} are expected by its end, which is within it."
    on = "" if numbers.period == "day" else f" on {_date(numbers.crosses_on)}"
    return f"{text}; it will be crossed{on}, {numbers.projected:,} are expected by its end."


_SUMMARIES = {
    Kind.SPIKE: _spike,
    Kind.RETRY_LOOP: _loop,
    Kind.SILENCE: _silence,
    Kind.UNUSUAL_HOUR: _unusual_hour,
    Kind.LEVEL_SHIFT: _shift,
    Kind.CONCENTRATION: _concentration,
    Kind.NEW_AGENT: _new,
    Kind.DORMANT_AGENT: _dormant,
    Kind.TOKEN_WASTE: _waste,
    Kind.BUDGET: _budget,
}


def _name(agent: str, options: Options) -> str:
    return options.names.get(agent, agent) or "all other agents"


def _day(moment: datetime) -> str:
    return f"{_weekday(moment)[:3]} {moment.day} {_MONTHS[moment.month - 1]}"


def _date(day: date) -> str:
    return f"{_DAYS[day.weekday()][:3]} {day.day} {_MONTHS[day.month - 1]}"


def _weekday(moment: datetime) -> str:
    return _DAYS[moment.weekday()]


def _clock(moment: datetime) -> str:
    return f"{moment:%H:%M}"


def _hour(moment: datetime) -> str:
    return f"{moment.hour or 24:02}"


def _between(usual: Range) -> str:
    return f"{usual.low:,}{_TO}{usual.high:,}" if usual.low != usual.high else f"{usual.low:,}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
