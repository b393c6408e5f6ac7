"""The locks: every package is pinned with hashes, and tests run the deployed versions."""

import re

from app.config.settings import ROOT


def pins(lock: str) -> dict[str, str]:
    text = (ROOT / lock).read_text()
    return dict(re.findall(r"^([a-z0-9-]+)(?:\[[a-z,]+\])?==(\S+)", text, re.MULTILINE))


def test_what_is_deployed_is_what_is_tested():
    deployed, tested = pins("requirements.txt"), pins("requirements-test.txt")
    assert {"flask", "sqlalchemy", "psycopg", "gunicorn"} <= deployed.keys()
    assert deployed.items() <= tested.items()
    traced = pins("requirements-tracing.txt")
    assert deployed.items() < traced.items() < tested.items()
    assert "opentelemetry-sdk" in traced
    benched = pins("requirements-bench.txt")
    assert benched.keys() - deployed.keys() == {"duckdb"}
    assert deployed.items() < benched.items()
    assert "duckdb" not in tested


def test_every_pin_has_hashes():
    for lock in ROOT.glob("requirements*.txt"):
        for requirement in re.split(r"\n(?=[a-z])", lock.read_text()):
            assert "==" not in requirement or "--hash=sha256:" in requirement
