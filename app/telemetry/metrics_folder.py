"""The folder through which gunicorn's workers share their metrics.

A scrape reaches one process only, so each worker writes its metrics into files, and
``app.telemetry.metrics_server`` adds them up. prometheus_client looks for the folder in the
environment when it is first imported. So gunicorn's main process calls :func:`share` before the
first worker is forked, and imports nothing of the library before that.
"""

import os
import shutil
import tempfile
from pathlib import Path

from app.errors import SettingsError

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

_folder: Path | None = None
_is_temporary = False


def share(given: Path | None) -> Path:
    """Share metrics through a folder from now on, in this process and those that it forks.

    Args:
        given: the folder, of which files of an earlier process are deleted; a new one by default.

    Raises:
        SettingsError: names ``PROMETHEUS_MULTIPROC_DIR``, which cannot be used.
    """
    global _folder, _is_temporary  # noqa: PLW0603 - one for each process
    try:
        if given is None:
            _folder, _is_temporary = Path(tempfile.mkdtemp(prefix="agentidp-analytics-")), True
        else:
            given.mkdir(mode=0o700, parents=True, exist_ok=True)
            for file in given.glob("*.db"):
                file.unlink(missing_ok=True)
            tempfile.TemporaryFile(dir=given).close()  # the workers write there, too
            _folder = given
    except OSError as error:
        raise SettingsError(VARIABLE, f"cannot be used: {error.strerror}") from None
    os.environ[VARIABLE] = str(_folder)
    return _folder


def keep_private() -> None:
    """Share no metrics unless :func:`share` was called, even if the environment names a folder.

    Every process of the service may have the variable; the folder is for gunicorn's workers.
    """
    if _folder is None:
        os.environ.pop(VARIABLE, None)


def remove_worker(pid: int) -> None:
    """Take a worker that ended out of what is added up over living workers."""
    if _folder is not None:
        from prometheus_client import multiprocess  # noqa: PLC0415 - only after share()

        multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]  # the library's gap


def remove() -> None:
    """Delete the folder if :func:`share` made it."""
    if _folder is not None and _is_temporary:
        shutil.rmtree(_folder, ignore_errors=True)
