"""``python -m tests.insight.files FILE``: the findings in a file of events (NDJSON, or gzip).

All days are judged, as if each had just ended, but for the last one, which may not be whole.
"""

import gzip
import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

from app.detection import Finding, Options, summary
from tests.insight.watching import History, watched


def findings_in(path: Path) -> Iterator[tuple[str, Finding]]:
    """Each organization of a file, in their order, with its findings."""
    opened = gzip.open if path.suffix == ".gz" else open
    counts: dict[str, dict[tuple[str, date, int], int]] = defaultdict(lambda: defaultdict(int))
    with opened(path, "rt") as lines:
        for line in lines:
            event = json.loads(line)
            day, hour = date.fromisoformat(event["issuedAt"][:10]), int(event["issuedAt"][11:13])
            counts[event["organizationId"]][event["agentId"], day, hour] += 1
    days = {day for organization in counts.values() for _, day, _ in organization}
    first, size = min(days), (max(days) - min(days)).days + 1
    for organization, rows in sorted(counts.items()):
        agents = {agent: [0] * 24 * size for agent, _, _ in rows}
        for (agent, day, hour), count in rows.items():
            agents[agent][(day - first) // timedelta(days=1) * 24 + hour] = count
        history = History(first, agents)
        for finding in watched(organization, history, range(size - 1)):
            yield organization, finding


def main() -> None:
    """Print the findings, one a line."""
    for organization, one in findings_in(Path(sys.argv[1])):
        text = summary(one, Options())
        print(f"{one.opened_at:%Y-%m-%d %H}\t{organization}\t{one.kind}\t{one.severity}\t{text}")


if __name__ == "__main__":
    main()
