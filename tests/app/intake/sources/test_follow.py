"""Following: every whole line once, across rotation, restart and other trouble."""

import gzip
import os
import random
import shutil

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from app.intake.formats import Options
from app.intake.sources import follow as following
from app.intake.sources.follow import KEPT_MARKS, QUIET_SECONDS, SURVEY_SECONDS
from app.intake.sources.logfile import LINE_BYTES
from app.storage.tables import source_positions
from tests.app.intake.sources.conftest import Follow
from tests.support.log_files import RotatedLog, event_line
from tests.support.settings import EVENT_BYTES


def test_lines_are_stored_as_they_are_written(database, path):
    """A line counts when it has its end; the position and the counts follow."""
    follow = Follow(database, path)
    follow.catch_up()
    assert follow.ids() == []
    path.write_bytes(event_line("a") + event_line("b")[:20])
    follow.catch_up()
    assert follow.ids() == ["a"]
    with path.open("ab") as file:
        file.write(event_line("b")[20:] + event_line("a"))
    follow.catch_up()
    assert follow.ids() == ["a", "b"]
    row = follow.row()
    assert (row.accepted, row.duplicates, row.refused, row.place) == (2, 1, 0, "host-1")
    follow.follower.close()


@pytest.mark.parametrize("restart", [False, True], ids=["alive", "restarted"])
@pytest.mark.parametrize("way", ["rename", "rename_late", "copy_and_truncate", "compress"])
def test_a_rotation_loses_and_repeats_nothing(follow, written, way, restart):
    """What was written before, during and after a rotation is read once, also by a new process."""
    follow.catch_up()
    for _ in range(4):
        written.write(5)
        follow.catch_up()
        written.write(3)  # unread when the log is rotated
        getattr(written, way)()
        written.write(2)
        if restart:
            follow.start()
        follow.catch_up(seconds=SURVEY_SECONDS)
    assert follow.ids() == written.written
    assert follow.row().duplicates == 0


@pytest.mark.parametrize("times", [2, 5])
def test_several_rotations_while_nothing_reads_are_found(follow, written, times):
    """Files that were never seen are read, whatever their names are now."""
    follow.catch_up()
    written.write(5)
    follow.catch_up()
    for number in range(times):
        written.write(5)
        if number % 2:
            written.compress()
        else:
            written.rename()
    written.write(5)
    follow.start()
    follow.catch_up()
    assert follow.ids() == written.written
    assert follow.row().duplicates == 0


def test_rotated_files_from_before_the_first_start_are_left_alone(follow, written):
    """They may be older than the memory for duplicates: an import is the way for them."""
    written.write(5)
    old = written.rename()
    os.utime(old, (1, 1))
    before = list(written.written)
    written.write(3)
    follow.catch_up()
    assert follow.ids() == [name for name in written.written if name not in before]
    follow.start()
    follow.catch_up()
    assert len(follow.ids()) == 3


def test_a_file_with_the_same_inode_and_other_content_is_new(follow, path):
    """Truncated and written anew, even beyond the old offset."""
    path.write_bytes(event_line("a") + event_line("b"))
    follow.catch_up()
    inode = path.stat().st_ino
    for restart in (False, True):
        names = [f"{restart}-{number}" for number in range(9)]
        with path.open("r+b") as file:
            file.truncate()
            file.write(b"".join(map(event_line, names)))
        assert path.stat().st_ino == inode
        if restart:
            follow.start()
        follow.catch_up()
    assert len(follow.ids()) == 20


def test_a_file_that_became_shorter_is_read_from_its_begin(follow, path):
    path.write_bytes(b"".join(event_line(f"old-{number}") for number in range(9)))
    follow.catch_up()
    path.write_bytes(event_line("new"))
    follow.catch_up()
    assert "new" in follow.ids()
    assert len(follow.ids()) == 10


def test_a_writer_that_does_not_append_leaves_a_hole(follow, path):
    """After a truncation the file begins with NUL bytes, and its lines are read."""
    with path.open("wb", buffering=0) as file:
        file.write(event_line("a") * 100)
        follow.catch_up()
        os.truncate(path, 0)
        file.write(event_line("b"))
        follow.catch_up()
    assert follow.ids() == ["a", "b"]
    assert follow.row().refused == 0


def test_an_editor_that_replaces_the_file_repeats_nothing(follow, path):
    """A new inode with the old content and more goes on where the old one ended."""
    path.write_bytes(b"".join(event_line(f"{number:03}") for number in range(50)))
    follow.catch_up()
    copy = path.with_name("audit.tmp")
    shutil.copy(path, copy)
    with copy.open("ab") as file:
        file.write(event_line("later"))
    copy.rename(path)
    follow.catch_up()
    assert len(follow.ids()) == 51
    assert follow.row().duplicates == 0


def test_a_symbolic_link_that_is_swapped_is_followed(follow, path):
    """The file that it led to is read to its end, and the new one from its begin."""
    first, second = path.with_name("audit-2026-04-01.log"), path.with_name("audit-2026-04-02.log")
    first.write_bytes(event_line("a"))
    path.symlink_to(first.name)
    for restart in (False, True):
        follow.catch_up()
        with first.open("ab") as file:
            file.write(event_line(f"late-{restart}"))
        second.write_bytes(event_line(f"b-{restart}"))
        path.unlink()
        path.symlink_to(second.name)
        if restart:
            follow.start()
        follow.catch_up(seconds=SURVEY_SECONDS)
        first, second = second, path.with_name("audit-2026-04-03.log")
    assert follow.ids() == ["a", "b-False", "b-True", "late-False", "late-True"]


def test_a_last_line_without_an_end_counts_once_the_file_is_rotated(follow, written, path):
    """The file is complete when it has been quiet for a while."""
    path.write_bytes(event_line("a") + event_line("b").rstrip())
    follow.catch_up()
    assert follow.ids() == ["a"]
    written.rename()
    follow.catch_up()
    assert follow.ids() == ["a"]
    follow.catch_up(seconds=QUIET_SECONDS)
    follow.catch_up(seconds=QUIET_SECONDS)
    assert follow.ids() == ["a", "b"]


def test_a_rotated_file_that_grows_much_later_is_read(follow, written, path):
    """A process that has not reopened its log is not forgotten."""
    written.write(3)
    follow.catch_up()
    old = written.rename()
    for _ in range(3):
        follow.catch_up(seconds=QUIET_SECONDS)
    assert len(follow.follower._files.open) == 1
    with old.open("ab") as file:
        file.write(event_line("late"))
    follow.catch_up(seconds=SURVEY_SECONDS)
    assert "late" in follow.ids()


def test_a_file_that_is_deleted_is_read_to_its_end(follow, written, path):
    """It stays readable while it is open."""
    written.write(2)
    follow.catch_up()
    written.write(3)
    path.unlink()
    written.write(2)
    follow.catch_up()
    assert follow.ids() == written.written


def test_a_very_long_line_is_refused_and_the_rest_is_read(follow, path):
    """It is counted once, also if a restart comes in its middle."""
    path.write_bytes(event_line("a") + b"x" * (LINE_BYTES * 2))
    follow.catch_up()
    follow.start()
    with path.open("ab") as file:
        file.write(b"x" * LINE_BYTES + b"\n" + event_line("b"))
    follow.catch_up()
    assert follow.ids() == ["a", "b"]
    assert follow.row().refused == 1


def test_a_bad_line_stops_nothing(follow, path, tmp_path, caplog):
    """It is counted, logged without its content, and kept."""
    follow.rejects = tmp_path / "rejects"
    follow.rejects.touch(0o644)
    follow.start()
    bad = [b"{secret\n", b'{"id": "no organization"}\n', b"\xff\xfe\n", b'{"id":"\\ud800"}\n']
    path.write_bytes(event_line("a") + b"".join(bad) + event_line("b"))
    follow.catch_up()
    assert follow.ids() == ["a", "b"]
    assert follow.row().refused == len(bad)
    assert follow.rejects.read_bytes() == b"".join(bad)
    assert follow.rejects.stat().st_mode & 0o777 == 0o600
    assert "secret" not in caplog.text
    shown = [record for record in caplog.records if record.message == "record refused"]
    assert len(shown) == len(bad)
    assert shown[0].fields["source"] == "audit"


def test_rejects_that_cannot_be_written_stop_nothing(follow, path, tmp_path):
    follow.rejects = tmp_path  # a folder
    follow.start()
    path.write_bytes(b"{\n" + event_line("a"))
    follow.catch_up()
    assert (follow.ids(), follow.row().refused) == (["a"], 1)


def test_a_folder_is_refused_and_a_file_in_its_place_read(follow, path):
    path.mkdir()
    with pytest.raises(OSError, match="is a folder"):
        follow.follower.turn()
    follow.follower.fail("because")
    assert follow.row().error == "because"
    path.rmdir()
    path.write_bytes(event_line("a"))
    follow.catch_up()
    assert (follow.ids(), follow.row().error) == (["a"], None)


def test_a_log_that_is_unreadable_for_a_while_is_read_later(follow, written, path, monkeypatch):
    """The old file is read meanwhile, and the failure is reported."""
    written.write(2)
    follow.catch_up()
    written.write(2)
    written.rename()
    written.write(2)
    opened = following.LogFile

    def refuse(place):
        if place == path:
            raise PermissionError(13, "Permission denied", str(place))
        return opened(place)

    with monkeypatch.context() as patch:
        patch.setattr("app.intake.sources.rotation.LogFile", refuse)
        with pytest.raises(PermissionError):
            follow.follower.turn()
        assert follow.ids() == written.written[:4]
    follow.catch_up(seconds=SURVEY_SECONDS)
    assert follow.ids() == written.written


def test_an_unavailable_database_loses_nothing(follow, written):
    """The same lines are read again, and memory holds one chunk at most."""
    written.write(3)
    follow.catch_up()
    written.write(3)
    rename = "ALTER TABLE {} RENAME TO {}"
    follow.database.write(
        lambda connection: connection.execute(
            sa.text(rename.format("source_positions", "elsewhere"))
        )
    )
    for _ in range(3):
        with pytest.raises(DBAPIError):
            follow.follower.turn()
        written.write(2)
        written.rename()
    follow.database.write(
        lambda connection: connection.execute(
            sa.text(rename.format("elsewhere", "source_positions"))
        )
    )
    follow.catch_up()
    assert follow.ids() == written.written
    assert follow.row().duplicates == 0


def test_two_followers_of_one_log_store_each_line_once(database, path):
    """The one that is behind reads the position of the other again."""
    log = RotatedLog(path, random.Random(3))
    one, other = Follow(database, path), Follow(database, path)
    for step in range(12):
        log.write(4)
        if step % 3 == 2:
            log.rotate()
        for follow in (one, other) if step % 2 else (other, one):
            follow.catch_up(seconds=SURVEY_SECONDS)
    assert one.ids() == log.written
    assert one.row().accepted == len(log.written)
    assert one.row().duplicates == 0
    for follow in (one, other):
        follow.follower.close()
    log.close()


def test_another_host_has_a_position_of_its_own(follow, path, tmp_path):
    """Logs of two hosts may have one path, and are different files."""
    path.write_bytes(event_line("a"))
    follow.catch_up()
    (tmp_path / "other").mkdir()
    elsewhere = Follow(follow.database, tmp_path / "other" / "audit.log")
    elsewhere.host = "host-2"
    elsewhere.path.write_bytes(event_line("b"))
    elsewhere.start()
    elsewhere.catch_up()
    assert follow.ids() == ["a", "b"]
    with pytest.raises(sa.exc.MultipleResultsFound):
        follow.row()
    elsewhere.follower.close()


def move(follow, written):
    """Restart a container under another name, after a rotation and with unread lines."""
    written.write(5)
    follow.catch_up()
    written.write(5)
    written.rename()
    written.write(5)
    follow.host = "host-2"
    follow.start()


def test_a_container_with_another_name_goes_on(follow, written):
    """A position belongs to the files, whatever the host is called."""
    move(follow, written)
    follow.catch_up()
    assert follow.ids() == written.written
    row = follow.row()
    assert (row.place, row.duplicates) == ("host-1", 0)


def test_a_container_that_fails_at_first_goes_on_as_well(follow, written, monkeypatch):
    """A failure before the first line is no position, and is over with the first line."""
    move(follow, written)
    with monkeypatch.context() as patch:
        patch.setattr(following, "has_read", refused)
        with pytest.raises(PermissionError):
            follow.follower.turn()
        follow.follower.fail("Permission denied")
    follow.catch_up()
    assert follow.ids() == written.written
    with follow.database.reading() as connection:
        rows = connection.execute(sa.select(source_positions.c.place, source_positions.c.error))
        assert dict(map(tuple, rows)) == {"host-1": None, "host-2": None}


def refused(*_given):
    raise PermissionError(13, "Permission denied")


def test_the_position_stays_small(follow, written):
    """Marks of old files are dropped, however often the log is rotated."""
    for _ in range(3 * KEPT_MARKS):
        written.write(2)
        follow.catch_up(seconds=QUIET_SECONDS)
        written.rename()
        follow.catch_up(seconds=QUIET_SECONDS)
        follow.catch_up(seconds=QUIET_SECONDS)
    written.write(1)
    follow.catch_up(seconds=QUIET_SECONDS)
    assert follow.ids() == written.written
    assert follow.row().position.count('"inode"') <= KEPT_MARKS + 2
    assert len(follow.follower._files.open) <= 2
    assert follow.row().duplicates == 0


def test_a_clock_that_jumps_changes_nothing(follow, written, path):
    """Times of files order them, and no time of the host is compared with them."""
    written.write(3)
    follow.catch_up()
    for ahead in (10**9, -(10**9)):
        written.write(3)
        at = path.stat().st_mtime + ahead
        os.utime(path, (at, at))
        follow.catch_up()
        written.rename()
        written.write(3)
        follow.catch_up(seconds=SURVEY_SECONDS)
    assert follow.ids() == written.written


def test_an_organization_belongs_to_all_events(sqlite, path):
    follow = Follow(sqlite, path)
    follow.options = Options("org-z", EVENT_BYTES)
    follow.start()
    line = event_line("a").replace(b'"organizationId": "org-a", ', b"")
    path.write_bytes(line + event_line("b"))
    follow.catch_up()
    assert (follow.ids(), follow.row().refused) == (["a"], 1)
    follow.follower.close()


def test_a_copy_that_is_compressed_is_read_on(follow, path):
    """A file that was read half, then compressed while nothing read it."""
    lines = [event_line(f"{number:03}") for number in range(60)]
    path.write_bytes(b"".join(lines[:30]))
    follow.catch_up()
    packed = path.with_name("audit.log.1.gz")
    packed.write_bytes(gzip.compress(b"".join(lines)))
    path.unlink()
    path.write_bytes(event_line("new"))
    follow.start()
    follow.catch_up()
    assert len(follow.ids()) == 61
    assert follow.row().duplicates == 0


@pytest.mark.parametrize("seed", range(6))
def test_any_order_of_writes_rotations_and_restarts(sqlite, path, seed):
    """Every event once, whatever happens in between."""
    dice = random.Random(seed)
    log = RotatedLog(path, dice)
    follow = Follow(sqlite, path)
    follow.catch_up()
    for _ in range(60):
        chosen = dice.random()
        if chosen < 0.4:
            log.write(dice.randrange(6))
        elif chosen < 0.6:
            log.rotate()
        elif chosen < 0.7:
            follow.start()
        else:
            follow.clock.now += dice.choice((0, 1, QUIET_SECONDS))
            follow.follower.turn()
    follow.catch_up(seconds=SURVEY_SECONDS)
    follow.catch_up(seconds=SURVEY_SECONDS)
    assert follow.ids() == log.written
    follow.follower.close()
    log.close()
