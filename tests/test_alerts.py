"""The alerts in docs/operate/alerts.yml, evaluated by promtool over made-up series.

The samples of the two instances lie between each other and between the evaluations, as a real
Prometheus has them. So increase() extrapolates, and a rule must not depend on whole numbers.
"""

import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import yaml

from app.config.settings import ROOT

ALERTS = ROOT / "docs" / "operate" / "alerts.yml"
STEP = 5  # seconds; the samples of a series lie on some of these steps
MINUTE = 60
HOUR = 60 * MINUTE

pytestmark = pytest.mark.skipif(not shutil.which("promtool"), reason="there is no promtool")

Value = Callable[[int], float | None]


def samples(value: Value, until: int, every: int, phase: int) -> str:
    """A series as promtool reads it: a sample each ``every`` seconds, the first at ``phase``."""
    found = []
    for second in range(0, until, STEP):
        is_scraped = second % every == phase
        sample = value(second) if is_scraped else None
        found.append("_" if sample is None else f"{sample:g}")
    return " ".join(found)


class Scenario:
    """Series, and the alerts that fire over them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._series: list[tuple[str, Value]] = []

    def series(self, name: str, value: Value | float) -> None:
        steady = value if callable(value) else lambda _second: value
        self._series.append((name, steady))

    def healthy(self) -> None:
        """Two webs and two schedulers that are scraped, work, and have nothing to do."""
        for instance in ("a", "b"):
            web = f'instance="{instance}",job="web"'
            jobs = f'instance="{instance}",job="jobs"'
            self.series(f'analytics_build_info{{process="web",{web}}}', 1)
            self.series(f'analytics_build_info{{process="jobs",{jobs}}}', 1)
            self.series(f"up{{{web}}}", 1)
            self.series(f"up{{{jobs}}}", 1)
            self.series(f"analytics_database_up{{{jobs}}}", 1)
            self.series(f"analytics_rollup_last_finished_timestamp_seconds{{{jobs}}}", lambda s: s)
            self.series(f"analytics_rollup_watermark{{{jobs}}}", lambda s: s)
            self.series(f"analytics_rollup_pending_events{{{jobs}}}", 0)
            self.series(f"analytics_rollup_refused{{{jobs}}}", 0)
            self.series(
                f"analytics_findings_last_finished_timestamp_seconds{{{jobs}}}", lambda s: s
            )
            self.series(f"analytics_findings_suspect_silences{{{jobs}}}", 0)
            self.series(
                f"analytics_organizations_last_finished_timestamp_seconds{{{jobs}}}",
                lambda s: s // HOUR * HOUR,
            )
            self.series(f"analytics_database_connections_in_use{{{web}}}", 0)
            self.series(f"analytics_database_connections_max{{{web}}}", 8)

    def expect(
        self, *names: str, fires: Sequence[int] = (), silent: Sequence[int] = (), every: int = 15
    ) -> None:
        """Check at which seconds alerts fire, with a sample each ``every`` seconds."""
        until = max((*fires, *silent)) + MINUTE
        written = [
            {"series": series, "values": samples(value, until, every, number * STEP % every)}
            for number, (series, value) in enumerate(self._series)
        ]
        checks = [
            {
                "expr": f'count(ALERTS{{alertname="{name}",alertstate="firing"}}) > bool 0',
                "eval_time": f"{second}s",
                "exp_samples": [{"labels": "{}", "value": 1}] if second in fires else [],
            }
            for name in names
            for second in (*fires, *silent)
        ]
        rules = self._folder / "rules.yml"
        chosen = [rule for rule in RULES if rule["alert"] in names]
        rules.write_text(yaml.safe_dump({"groups": [{"name": "chosen", "rules": chosen}]}))
        file = self._folder / "test.yml"
        content = {
            "rule_files": [str(rules)],
            "evaluation_interval": "13s" if until < 3 * HOUR else "61s",
            "tests": [
                {"interval": f"{STEP}s", "input_series": written, "promql_expr_test": checks}
            ],
        }
        file.write_text(yaml.safe_dump(content))
        done = subprocess.run(
            ["promtool", "test", "rules", str(file)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def scenario(tmp_path: Path) -> Scenario:
    return Scenario(tmp_path)


def steps(*changes: tuple[int, float]) -> Value:
    """A value that changes at some seconds."""
    return lambda second: [value for since, value in changes if second >= since][-1]


def grows(per_second: float, since: int = 0, until: int = 10**9) -> Value:
    """A counter that grows from one second to another."""
    return lambda second: float(int(per_second * max(0, min(second, until) - since)))


def lives(value: float, since: int = 0, until: int = 10**9) -> Value:
    """A series that is there for some time only."""
    return lambda second: value if since <= second < until else None


RULES = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
RUNS = "analytics_rollup_runs_total"
JOBS = 'instance="a",job="jobs"'


@pytest.mark.parametrize("every", [15, 60])
def test_no_alert_fires_while_all_is_well(scenario: Scenario, every: int):
    scenario.healthy()
    scenario.series(f'{RUNS}{{outcome="done",{JOBS}}}', grows(1 / 15))
    scenario.series(f'{RUNS}{{outcome="failed",{JOBS}}}', 0)
    scenario.series('analytics_events_total{outcome="accepted",instance="a"}', grows(5))
    scenario.series('analytics_events_total{outcome="refused",instance="a"}', 0)
    scenario.series(requests("200"), grows(10))
    scenario.series(f'analytics_purge_runs_total{{outcome="done",{JOBS}}}', grows(1 / HOUR))
    names = [rule["alert"] for rule in RULES]
    scenario.expect(*names, silent=[5 * MINUTE, 30 * MINUTE, 100 * MINUTE], every=every)


def requests(status: str, route: str = "/api/v1/analytics/tokens", method: str = "GET") -> str:
    labels = f'status="{status}",route="{route}",method="{method}",instance="a",job="web"'
    return f"analytics_http_requests_total{{{labels}}}"


def web_up(scenario: Scenario, instance: str, up: Value | float, answers: Value | float) -> None:
    labels = f'instance="{instance}",job="web"'
    scenario.series(f"up{{{labels}}}", up)
    scenario.series(f'analytics_build_info{{process="web",{labels}}}', answers)


def test_one_of_several_webs_that_is_down_is_noticed(scenario: Scenario):
    down, up = 20 * MINUTE, 40 * MINUTE
    web_up(scenario, "a", 1, 1)
    web_up(
        scenario,
        "b",
        steps((0, 1), (down, 0), (up, 1)),
        lambda second: None if down <= second < up else 1,
    )
    scenario.expect(
        "AnalyticsWebDown",
        fires=[down + 4 * MINUTE, up - MINUTE],
        silent=[down - MINUTE, down + MINUTE, up + MINUTE],
    )


def test_a_web_that_was_removed_is_not_missed(scenario: Scenario):
    """A web that Prometheus no longer has as a target, as after a deployment, is not down."""
    web_up(scenario, "a", 1, 1)
    web_up(scenario, "b", lives(1, until=10 * MINUTE), lives(1, until=10 * MINUTE))
    scenario.expect("AnalyticsWebDown", silent=[12 * MINUTE, 16 * MINUTE, 30 * MINUTE])


def test_no_web_at_all_is_noticed(scenario: Scenario):
    web_up(scenario, "a", lives(1, until=10 * MINUTE), lives(1, until=10 * MINUTE))
    scenario.expect("AnalyticsWebDown", fires=[20 * MINUTE], silent=[10 * MINUTE])


@pytest.mark.parametrize("every", [15, 30, 60])
def test_one_failed_run_is_no_alert(scenario: Scenario, every: int):
    for phase in range(4):
        failed = 10 * MINUTE + 7 * phase
        labels = f'instance="{phase}",job="jobs"'
        scenario.series(f'{RUNS}{{outcome="failed",{labels}}}', steps((0, 0), (failed, 1)))
    scenario.series(f'{RUNS}{{outcome="done",{JOBS}}}', grows(1 / 15))
    scenario.expect(
        "AnalyticsRollupFailing", silent=list(range(9 * MINUTE, 25 * MINUTE, 20)), every=every
    )


def test_a_refusal_to_count_is_noticed(scenario: Scenario):
    """A stored refusal fires until it is ended, although no run is tried meanwhile."""
    refused = steps((0, 0), (10 * MINUTE, 1), (90 * MINUTE, 0))
    scenario.series(f"analytics_rollup_refused{{{JOBS}}}", refused)
    scenario.series('analytics_rollup_refused{instance="b",job="jobs"}', lives(0, until=5 * MINUTE))
    scenario.expect(
        "AnalyticsCountingRefused",
        silent=[5 * MINUTE, 10 * MINUTE, 92 * MINUTE],
        fires=[13 * MINUTE, 89 * MINUTE],
    )


@pytest.mark.parametrize("every", [15, 30, 60])
@pytest.mark.parametrize("outcome", ["failed", "refused"])
def test_runs_that_fail_are_noticed_until_one_succeeds(
    scenario: Scenario, every: int, outcome: str
):
    began, ended = 20 * MINUTE, 50 * MINUTE
    scenario.series(f'{RUNS}{{outcome="{outcome}",{JOBS}}}', grows(1 / 15, began, ended))
    scenario.series(
        f'{RUNS}{{outcome="done",{JOBS}}}',
        lambda second: float(min(second, began) // 15 + max(0, second - ended) // 15),
    )
    scenario.expect(
        "AnalyticsRollupFailing",
        fires=[began + 8 * MINUTE, ended - MINUTE],
        silent=[began - MINUTE, ended + 2 * MINUTE + 10],
        every=every,
    )


def purges(scenario: Scenario, done: Value | float, failed: Value | float) -> None:
    for outcome, value in (("done", done), ("failed", failed)):
        scenario.series(f'analytics_purge_runs_total{{outcome="{outcome}",{JOBS}}}', value)


@pytest.mark.parametrize("phase", [0, 7, 13])
def test_one_failed_purge_is_no_alert(scenario: Scenario, phase: int):
    failed = 5 * HOUR + phase
    purges(
        scenario,
        lambda second: float(second // HOUR - (second >= failed)),
        steps((0, 0), (failed, 1)),
    )
    times = [failed + minutes * MINUTE for minutes in (1, 5, 30, 59, 70, 120, 200)]
    scenario.expect("AnalyticsPurgeFailing", silent=times, every=60)


def test_purges_that_fail_are_noticed_until_one_succeeds(scenario: Scenario):
    began, ended = 4 * HOUR, 9 * HOUR
    purges(
        scenario,
        lambda second: float(min(second, began) // HOUR + max(0, second - ended) // HOUR),
        lambda second: float((min(second, ended) - began) // HOUR if second > began else 0),
    )
    scenario.expect(
        "AnalyticsPurgeFailing",
        fires=[8 * HOUR, 9 * HOUR],
        silent=[5 * HOUR, 10 * HOUR + 5 * MINUTE, 12 * HOUR],
        every=60,
    )


def test_findings_that_are_not_judged_are_noticed(scenario: Scenario):
    """Findings are old an hour after the last pass that judged all that was due."""
    stuck, ends = 30 * MINUTE, 3 * HOUR
    for instance in ("a", "b"):
        scenario.series(
            f'analytics_findings_last_finished_timestamp_seconds{{instance="{instance}"}}',
            lambda second: second if second > ends else min(second, stuck),
        )
    scenario.expect(
        "AnalyticsFindingsOld",
        fires=[stuck + 75 * MINUTE, ends - MINUTE],
        silent=[stuck + 55 * MINUTE, ends + 2 * MINUTE],
    )


def test_an_old_list_of_organizations_is_noticed(scenario: Scenario):
    """The list is old three hours after the last complete one, whichever scheduler made it."""
    stuck, ends = HOUR, 6 * HOUR
    for instance in ("a", "b"):
        scenario.series(
            f'analytics_organizations_last_finished_timestamp_seconds{{instance="{instance}"}}',
            lambda second: second if second > ends else min(second, stuck) // HOUR * HOUR,
        )
    scenario.expect(
        "AnalyticsOrganizationsOld",
        fires=[stuck + 3 * HOUR + 15 * MINUTE, ends - MINUTE],
        silent=[stuck + 3 * HOUR + 5 * MINUTE, ends + 2 * MINUTE],
        every=60,
    )


def test_many_silences_at_once_are_noticed(scenario: Scenario):
    began, ended = 20 * MINUTE, 60 * MINUTE
    scenario.series(
        'analytics_findings_suspect_silences{instance="a"}', steps((0, 0), (began, 40), (ended, 0))
    )
    scenario.expect(
        "AnalyticsManySilent",
        fires=[began + 7 * MINUTE, ended - MINUTE],
        silent=[began - MINUTE, ended + 2 * MINUTE],
    )


def test_server_errors_are_noticed_and_end_with_the_outage(scenario: Scenario):
    began, ended = 20 * MINUTE, 40 * MINUTE
    scenario.series(requests("200"), grows(10))
    scenario.series(requests("503"), grows(1, began, ended))
    scenario.series(requests("500", "/signin", "POST"), steps((0, 0), (70 * MINUTE, 1)))
    scenario.expect(
        "AnalyticsServerErrors",
        fires=[began + 8 * MINUTE, ended - MINUTE],
        silent=[began - MINUTE, ended + 3 * MINUTE, 72 * MINUTE, 77 * MINUTE],
    )


def test_reads_that_hang_without_an_answer_are_slow(scenario: Scenario):
    hangs, ends = 20 * MINUTE, 50 * MINUTE
    web = 'instance="a",job="web"'
    web_up(scenario, "a", 1, 1)
    scenario.series(
        f"analytics_database_connections_in_use{{{web}}}", steps((0, 0), (hangs, 3), (ends, 0))
    )
    scenario.series(
        requests("200"), lambda second: float(min(second, hangs) + max(0, second - ends))
    )
    scenario.series(requests("200", "/health"), grows(1))
    scenario.expect(
        "AnalyticsSlow",
        fires=[hangs + 15 * MINUTE, ends - MINUTE],
        silent=[hangs - MINUTE, ends + 2 * MINUTE],
    )


def test_a_busy_web_is_not_slow(scenario: Scenario):
    web_up(scenario, "a", 1, 1)
    scenario.series('analytics_database_connections_in_use{instance="a",job="web"}', 4)
    scenario.series(requests("200"), grows(100))
    scenario.series('analytics_database_connections_in_use{instance="c",job="jobs"}', 2)
    scenario.expect("AnalyticsSlow", silent=[20 * MINUTE, 40 * MINUTE])


def test_slow_answers_are_noticed(scenario: Scenario):
    for bound, rate in (("0.5", 90), ("1", 90), ("2.5", 100), ("+Inf", 100)):
        name = "analytics_http_request_duration_seconds_bucket"
        scenario.series(f'{name}{{le="{bound}",instance="a"}}', grows(rate))
    scenario.expect("AnalyticsSlow", fires=[30 * MINUTE])


def test_one_timeout_of_a_connection_is_no_alert(scenario: Scenario):
    name = 'analytics_database_connection_timeouts_total{instance="a"}'
    scenario.series(name, steps((0, 0), (10 * MINUTE, 1)))
    scenario.expect("AnalyticsPoolExhausted", silent=list(range(10 * MINUTE, 20 * MINUTE, 30)))


def test_refused_events_are_noticed(scenario: Scenario):
    name = 'analytics_events_total{{outcome="{}",instance="a"}}'
    scenario.series(name.format("accepted"), grows(10))
    scenario.series(name.format("duplicate"), grows(1))
    scenario.series(name.format("refused"), grows(1, 20 * MINUTE, 50 * MINUTE))
    scenario.expect(
        "AnalyticsEventsRefused",
        fires=[35 * MINUTE, 50 * MINUTE],
        silent=[19 * MINUTE, 56 * MINUTE],
    )


@pytest.mark.parametrize("pause", [1, 30, 5 * MINUTE])
@pytest.mark.parametrize("status", ["400", "413"])
def test_a_shipper_that_repeats_a_bad_batch_is_noticed(scenario: Scenario, pause: int, status: str):
    """A batch that is sent again and again is noticed, also from a shipper that waits longer."""
    scenario.series(
        requests(status, "/api/v1/events", "POST"), grows(1 / pause, 20 * MINUTE, 90 * MINUTE)
    )
    scenario.series(requests("202", "/api/v1/events", "POST"), grows(10))
    scenario.expect(
        "AnalyticsShipperBlocked",
        fires=[60 * MINUTE, 90 * MINUTE],
        silent=[30 * MINUTE, 98 * MINUTE],
    )


def test_a_refused_batch_now_and_then_is_no_blocked_shipper(scenario: Scenario):
    scenario.series(
        requests("400", "/api/v1/events", "POST"), lambda second: float(second // (10 * MINUTE))
    )
    scenario.expect("AnalyticsShipperBlocked", silent=list(range(20 * MINUTE, 60 * MINUTE, 110)))


def test_many_refused_tokens_are_noticed(scenario: Scenario):
    scenario.series(requests("200"), grows(10))
    scenario.series(requests("401"), grows(5, 20 * MINUTE, 50 * MINUTE))
    scenario.expect(
        "AnalyticsTokensRefused",
        fires=[35 * MINUTE, 50 * MINUTE],
        silent=[19 * MINUTE, 57 * MINUTE],
    )


def test_a_source_that_fails_for_long_is_noticed(scenario: Scenario):
    """One that fails for a few minutes is not; each scheduler shows every source."""
    for instance in ("a", "b"):
        labels = f'source="okta",host="",instance="{instance}",job="jobs"'
        scenario.series(
            f"analytics_source_failed{{{labels}}}",
            lambda second: float(
                10 * MINUTE < second < 15 * MINUTE or 30 * MINUTE < second < 60 * MINUTE
            ),
        )
    scenario.expect(
        "AnalyticsSourceFailing",
        fires=[47 * MINUTE, 60 * MINUTE],
        silent=[20 * MINUTE, 40 * MINUTE, 62 * MINUTE],
    )


def test_parked_messages_are_noticed(scenario: Scenario):
    """Attempts that fail and are repeated are not."""
    messages = "analytics_webhook_messages_total"
    for instance in ("a", "b"):
        labels = f'instance="{instance}",job="jobs"'
        scenario.series(f'{messages}{{outcome="failed",{labels}}}', grows(0.1))
    parked = f'{messages}{{outcome="parked",instance="a",job="jobs"}}'
    scenario.series(parked, steps((0, 0), (80 * MINUTE, 1)))
    scenario.expect(
        "AnalyticsWebhooksParked",
        fires=[82 * MINUTE, 130 * MINUTE],
        silent=[79 * MINUTE, 145 * MINUTE],
    )


def test_an_hour_without_events_is_noticed(scenario: Scenario):
    """Silence is noticed on all ways in, by the watermark, and ends with the next event."""
    ends, returns = 60 * MINUTE, 200 * MINUTE
    for instance in ("a", "b"):
        labels = f'instance="{instance}",job="jobs"'
        scenario.series(
            f"analytics_rollup_watermark{{{labels}}}",
            lambda second: float(min(second, ends) + max(0, second - returns)),
        )
        scenario.series(f"analytics_rollup_pending_events{{{labels}}}", 0)
    scenario.expect(
        "AnalyticsIngestSilent",
        fires=[ends + 70 * MINUTE, returns - MINUTE],
        silent=[ends - MINUTE, ends + 59 * MINUTE, returns + 2 * MINUTE],
        every=30,
    )


def test_events_that_are_not_counted_are_no_silence(scenario: Scenario):
    """Events that wait to be counted have come in, though the watermark stays."""
    scenario.series(f"analytics_rollup_watermark{{{JOBS}}}", 5)
    scenario.series(f"analytics_rollup_pending_events{{{JOBS}}}", grows(1))
    scenario.expect("AnalyticsIngestSilent", silent=[120 * MINUTE], every=30)
