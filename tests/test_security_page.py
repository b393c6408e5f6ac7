"""docs/security.md names only existing tests."""

import re

from app.config.settings import ROOT


def test_every_test_that_the_security_page_names_exists():
    page = (ROOT / "docs" / "security.md").read_text()
    named = set(re.findall(r"`(tests/[\w/]+\.py)`", page))
    assert len(named) > 15
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_every_rule_has_a_test():
    page = (ROOT / "docs" / "security.md").read_text()
    rows = [row for row in page.splitlines() if row.startswith("| ") and "threat" not in row]
    assert rows
    assert [row for row in rows if "`tests/" not in row.split("|")[-2]] == []
