"""The report: recall, precision, false findings and delays, as tables."""

from collections.abc import Iterator

from app.detection import Kind
from tests.insight.organizations import JUDGED
from tests.insight.scoring import MONTH, SIZES, Score, quantiles

# A line of the report: its name, the labels it counts, and what must be reached.
_RECALL = (
    ("spike x3, x5, x10", [("spike", 3), ("spike", 5), ("spike", 10)], 0.85),
    ("spike x2", [("spike", 2)], None),
    ("spike x3", [("spike", 3)], 0.65),
    ("spike x5", [("spike", 5)], 0.90),
    ("spike x10", [("spike", 10)], 0.93),
    ("burst x5, 4 h", [("burst", 5)], None),
    ("burst x10 and x20, 4 h", [("burst", 10), ("burst", 20)], 0.88),
    ("retry loop x5", [("loop", 5)], None),
    ("retry loop x10 and more", [("loop", 10), ("loop", 30), ("loop", 100)], 0.90),
    ("silence 2 h", [("outage", 2)], 0.70),
    ("silence 8 h and more", [("outage", 8), ("outage", 24), ("outage", 72)], 0.94),
    (
        "silence of an agent",
        [("agent stop", 1), *(("agent pause", days) for days in (1, 2, 4, 7))],
        0.93,
    ),
    ("leak into empty hours", [("leak", 0)], 0.70),
    ("leak into the agent's own empty hours", [("own leak", 0)], None),
    (
        "level shift",
        [("level up", 2.0), ("level up", 3.0), ("level down", 0.5), ("level down", 0.33)],
        0.82,
    ),
)
_PRECISION = {
    Kind.SPIKE: 0.85,
    Kind.RETRY_LOOP: 0.92,
    Kind.SILENCE: 0.88,
    Kind.UNUSUAL_HOUR: 0.92,
    Kind.LEVEL_SHIFT: 0.80,
}
_EXACT = (Kind.NEW_AGENT, Kind.DORMANT_AGENT, Kind.CONCENTRATION)
FALSE_A_MONTH, HOLIDAYS_A_MONTH = 0.10, 0.30


def recalls(score: Score) -> Iterator[tuple[str, int, int, float | None, list[float]]]:
    """For each line: its name, found, labels, the part to reach, and the delays in hours."""
    for name, keys, least in _RECALL:
        chosen = [key for key in score.labels if key in keys]
        delays = [delay for key in chosen for delay in score.delays.get(key, ())]
        found = sum(score.found[key] for key in chosen)
        yield name, found, sum(score.labels[key] for key in chosen), least, delays


def precisions(score: Score) -> Iterator[tuple[str, int, int, float]]:
    """For each kind: right findings, all findings, and the part to reach."""
    for kind, least in _PRECISION.items():
        right = score.met[kind]
        yield kind.value, right, right + score.false[kind], least


def exacts(score: Score) -> Iterator[tuple[str, int, int, int]]:
    """For each exact kind: found, wanted, and wrong findings."""
    for kind in _EXACT:
        numbers = (score.exact[kind, name] for name in ("found", "wanted", "wrong"))
        yield kind.value, *numbers


def false_a_month(score: Score, size: int | None = None) -> float:
    """False findings of a clean organization and month; of one size, or of all."""
    months = sum(count for one, count in score.clean_months.items() if size is None or one == size)
    found = sum(
        count for (_, one), count in score.false_clean.items() if size is None or one == size
    )
    return found / max(months * JUDGED / MONTH, 1)


def holidays_a_month(score: Score) -> tuple[float, float]:
    """Findings on holidays, of a clean organization and month; those marked as a day off."""
    months = max(sum(score.clean_months.values()) * JUDGED / MONTH, 1)
    return score.holidays / months, score.days_off / months


def failures(score: Score, margin: float = 0.0, few: int = 1) -> list[str]:
    """What is not reached; ``margin`` is taken from what must be, on at least ``few`` cases."""
    found = [
        f"recall of {name}: {hits} of {labels}, required {least}"
        for name, hits, labels, least, _ in recalls(score)
        if least is not None and labels >= few and hits < (least - margin) * labels
    ]
    found += [
        f"precision of {name}: {right} of {total}, required {least}"
        for name, right, total, least in precisions(score)
        if total >= few and right < (least - margin) * total
    ]
    found += [
        f"{name}: {hits} of {wanted} found, {wrong} wrong"
        for name, hits, wanted, wrong in exacts(score)
        if hits < wanted or wrong
    ]
    if false_a_month(score) > FALSE_A_MONTH + margin:
        found.append(f"false findings of a clean organization and month: {false_a_month(score)}")
    if holidays_a_month(score)[0] > HOLIDAYS_A_MONTH + margin:
        found.append(f"findings on holidays: {holidays_a_month(score)[0]}")
    return found


def text(score: Score) -> str:
    """The report in Markdown."""
    lines = [
        "| hidden | found | recall | required | delay, median / p90 (h) |",
        "|---|---|---|---|---|",
    ]
    for name, found, labels, least, delays in recalls(score):
        delay = "{:.0f} / {:.0f}".format(*quantiles(delays)) if delays else "-"
        rate = f"{found / labels:.3f}" if labels else "-"
        lines.append(f"| {name} | {found} of {labels} | {rate} | {least or '-'} | {delay} |")
    lines += ["", "| kind | right | precision | required |", "|---|---|---|---|"]
    for name, right, total, required in precisions(score):
        rate = f"{right / total:.3f}" if total else "-"
        lines.append(f"| `{name}` | {right} of {total} | {rate} | {required} |")
    lines += ["", "| exact kind | found | wrong |", "|---|---|---|"]
    lines += [
        f"| `{name}` | {hits} of {all_} | {wrong} |" for name, hits, all_, wrong in exacts(score)
    ]
    lines += ["", "| clean organizations, tokens a day | false findings a month |", "|---|---|"]
    bounds = [*zip(("0", *SIZES), (*SIZES, "more"), strict=True)]
    lines += [
        f"| {low} to {high} | {false_a_month(score, size):.3f} |"
        for size, (low, high) in enumerate(bounds)
    ]
    lines.append(f"| all | {false_a_month(score):.3f} (required: at most {FALSE_A_MONTH}) |")
    holidays, marked = holidays_a_month(score)
    lines.append(
        f"| on holidays, on top | {holidays:.3f}, of which {marked:.3f} marked as a day off"
        f" (required: at most {HOLIDAYS_A_MONTH:.2f}) |"
    )
    return "\n".join(lines)
