"""axe-core, put into a page to look for obstacles to accessibility."""

from typing import Any

from app.config.settings import ROOT
from tests.browser.person import Person

AXE = ROOT / "tests" / "data" / "axe.min.js"


def findings(person: Person) -> list[str]:
    """What axe-core has against the page as it stands, a line for each rule: its impact, what
    it is, and the elements that break it."""
    if person.evaluate("typeof axe") == "undefined":
        # By the protocol, which the page's policy does not hold for.
        person.evaluate(AXE.read_text() + ";true")
    rules = person.evaluate(
        "axe.run(document, {resultTypes: ['violations']}).then(r => r.violations)"
    )
    return [_line(rule) for rule in rules]


def _line(rule: dict[str, Any]) -> str:
    nodes = rule["nodes"]
    shown = "; ".join(f"{node['target']} {node['failureSummary']}" for node in nodes[:5])
    return f"{rule['impact']} {rule['id']}, {len(nodes)} times: {' '.join(shown.split())}"
