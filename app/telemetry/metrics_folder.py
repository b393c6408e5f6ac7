"""The metrics folder: gunicorn's workers share their metrics through its files.

A scrape reaches one process only. So each worker writes its metrics into files, and
``app.telemetry.metrics_server`` adds them up. prometheus_client reads the folder's name from the
environment when it is first imported. So gunicorn's main process calls :func:`share` before the
first worker is forked. It must not import the library before that call.
"""

import os
import re
import shutil
import tempfile
from pathlib import Path

from app.errors import SettingsError

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

# A file that prometheus_client writes: the kind of its metrics, and the process.
_METRICS_FILE = re.compile(r"(counter|gauge_[a-z]+|histogram|summary)_[0-9]+\.db")
# A database may have such a name, too, but begins like this.
_SQLITE = b"SQLite format 3"

_folder: Path | None = None
_is_temporary = False


def share(given: Path | None) -> Path:
    """Share metrics through a folder from now on, in this process and in its forks.

    Args:
        given: the folder; metrics that an earlier process left there are deleted. ``None``: a new
            temporary folder.

    Raises:
        SettingsError: the folder cannot be used, or holds anything else. The message names
            ``PROMETHEUS_MULTIPROC_DIR``.
    """
    global _folder, _is_temporary  # noqa: PLW0603 - one for each process
    try:
        if given is None:
            _folder, _is_temporary = Path(tempfile.mkdtemp(prefix="agentidp-analytics-")), True
        else:
            given.mkdir(mode=0o700, parents=True, exist_ok=True)
            if others := [file.name for file in given.iterdir() if not _is_metrics(file)]:
                raise SettingsError(
                    VARIABLE, f"holds other files ({min(others)}); name a folder of its own"
                )
            empty(given)
            tempfile.TemporaryFile(dir=given).close()  # fails now if workers could not write there
            _folder = given
    except OSError as error:
        raise SettingsError(VARIABLE, f"cannot be used: {error.strerror}") from None
    os.environ[VARIABLE] = str(_folder)
    return _folder


def empty(folder: Path) -> None:
    """Delete the metrics in a folder, and nothing else."""
    for file in filter(_is_metrics, folder.iterdir()):
        file.unlink(missing_ok=True)


def _is_metrics(file: Path) -> bool:
    """Whether prometheus_client wrote this file."""
    if not _METRICS_FILE.fullmatch(file.name) or file.is_symlink() or not file.is_file():
        return False
    with file.open("rb") as opened:
        return opened.read(len(_SQLITE)) != _SQLITE


def keep_private() -> None:
    """Share no metrics unless :func:`share` was called, even if the environment names a folder.

    The variable may be set for every process of the service, but only gunicorn's workers use it.
    """
    if _folder is None:
        os.environ.pop(VARIABLE, None)


def remove_worker(pid: int) -> None:
    """Remove an ended worker from the metrics that are summed over living workers."""
    if _folder is not None:
        from prometheus_client import multiprocess  # noqa: PLC0415 - only after share()

        multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]  # the library's gap


def remove() -> None:
    """Delete the folder if :func:`share` made it."""
    if _folder is not None and _is_temporary:
        shutil.rmtree(_folder, ignore_errors=True)
