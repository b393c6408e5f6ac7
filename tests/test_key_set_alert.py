"""The alert on fetches of the key set, with series that are not aligned with its evaluation."""

import shutil
import subprocess

import pytest
import yaml

from app.config.settings import ROOT

ALERTS = ROOT / "docs" / "operate" / "alerts.yml"
NAME = "AnalyticsKeySetFailing"
SERIES = 'analytics_key_fetches_total{{instance="web-1",outcome="{}"}}'

# Two samples a minute. In each case: failed fetches, successful ones, and whether it fires.
CASES = {
    "every fetch fails": ("0+3x60", "5+0x60", True),
    "no fetch ever succeeded": ("1+3x60", "0+0x60", True),
    "nothing fails": ("0+0x60", "0+1x60", False),
    "one failure": ("0x20 1x40", "5+0x60", False),
    "two failures apart": ("0x20 1x10 2x30", "5+0x60", False),
    "some fail and some succeed": ("0+3x60", "0+1x60", False),
    "no request comes": ("7+0x60", "5+0x60", False),
    "an outage that ended": ("0+3x40 120x20", "5x41 6x20", False),
}


@pytest.mark.skipif(not shutil.which("promtool"), reason="there is no promtool")
@pytest.mark.parametrize(("failed", "fetched", "fires"), CASES.values(), ids=CASES)
def test_the_key_set_alert_fires_when_no_fetch_succeeds(tmp_path, failed, fetched, fires):
    """It fires when fetches fail repeatedly and none succeeds, and not for a single failure."""
    alert = {"exp_labels": {"severity": "warning", "instance": "web-1"}}
    summary = "web-1 cannot fetch the keys of the identity provider."
    alert["exp_annotations"] = {"summary": summary}
    test = {
        "interval": "29s",
        "input_series": [
            {"series": SERIES.format("timeout"), "values": failed},
            {"series": SERIES.format("fetched"), "values": fetched},
        ],
        "alert_rule_test": [
            {"eval_time": "25m", "alertname": NAME, "exp_alerts": [alert] if fires else []}
        ],
    }
    file = tmp_path / "test.yml"
    file.write_text(yaml.safe_dump({"rule_files": [str(ALERTS)], "tests": [test]}))
    done = subprocess.run(
        ["promtool", "test", "rules", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
