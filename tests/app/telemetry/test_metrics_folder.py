"""The metrics folder: only what prometheus_client writes is deleted from it."""

import sqlite3

import pytest

from app.errors import SettingsError
from app.telemetry import metrics_folder

LEFT = ["counter_1.db", "gauge_livesum_23.db", "gauge_all_4.db", "histogram_5.db", "summary_6.db"]


@pytest.fixture(autouse=True)
def unshared(monkeypatch):
    """The process's own state, brought back at the end."""
    monkeypatch.setattr(metrics_folder, "_folder", None)
    monkeypatch.setenv(metrics_folder.VARIABLE, "")


def test_metrics_of_an_earlier_process_are_deleted(tmp_path):
    for name in LEFT:
        (tmp_path / name).write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00")
    assert metrics_folder.share(tmp_path) == tmp_path
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name",
    [
        "analytics.db",
        "analytics.db-wal",
        "counter_1.db-journal",
        "counter_x.db",
        "my_counter_1.db",
        "counter_1.db.bak",
        "notes.txt",
        ".hidden",
        "folder/",
        "counter_2.db/",
    ],
)
def test_a_folder_with_anything_else_is_refused(tmp_path, name):
    """A folder with another file is refused by the setting's name, and nothing is deleted."""
    other = tmp_path / name
    other.mkdir() if name.endswith("/") else other.write_bytes(b"kept")
    (tmp_path / "counter_1.db").touch()
    with pytest.raises(
        SettingsError, match=r"^PROMETHEUS_MULTIPROC_DIR holds other files"
    ) as error:
        metrics_folder.share(tmp_path)
    assert other.name in error.value.message
    assert {file.name for file in tmp_path.iterdir()} == {other.name, "counter_1.db"}


def test_a_database_with_the_name_of_metrics_is_kept(tmp_path):
    file = tmp_path / "counter_1.db"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE kept (id INTEGER)")
    connection.close()
    with pytest.raises(SettingsError):
        metrics_folder.share(tmp_path)
    metrics_folder.empty(tmp_path)
    assert file.exists()


def test_a_link_to_a_file_is_kept(tmp_path):
    (tmp_path / "shared").mkdir()
    (tmp_path / "data").write_bytes(b"kept")
    (tmp_path / "shared" / "counter_1.db").symlink_to(tmp_path / "data")
    with pytest.raises(SettingsError):
        metrics_folder.share(tmp_path / "shared")
    assert (tmp_path / "data").read_bytes() == b"kept"


def test_emptying_leaves_other_files(tmp_path):
    """At the end the metrics are deleted, and a file that came meanwhile stays."""
    metrics_folder.share(tmp_path)
    for name in (*LEFT, "analytics.db"):
        (tmp_path / name).touch()
    metrics_folder.empty(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["analytics.db"]
