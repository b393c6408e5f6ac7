"""The address to listen on is checked before the start, and an error names the setting."""

import socket
import subprocess
import sys

import pytest

from app.config.settings import ROOT
from app.errors import SettingsError
from app.server.address import check_host, check_port
from tests.support.processes import free_port
from tests.support.settings import child_environ, make_settings


def at(host: str, port: int):
    return make_settings("sqlite:////nowhere/x.db", HOST=host, PORT=str(port))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_an_address_of_this_machine_is_accepted(host):
    check_host(at(host, 3000))
    check_port(at(host, free_port()))


def test_an_address_of_no_interface_is_refused_by_name():
    """HOST must be an address of this machine."""
    for check in (check_host, check_port):
        with pytest.raises(SettingsError, match=r"^HOST cannot be bound "):
            check(at("203.0.113.7", 3000))


def test_a_name_that_does_not_resolve_is_refused_by_name(monkeypatch):
    def unknown(*_arguments, **_options):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    for check in (check_host, check_port):
        with pytest.raises(SettingsError, match=r"^HOST cannot be resolved \(Name or service"):
            check(at("no-such-name.example", 3000))


def test_a_taken_port_is_refused_by_name():
    """A port on which another program listens is refused; HOST alone is not to blame."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        settings = at("127.0.0.1", other.getsockname()[1])
        check_host(settings)
        with pytest.raises(SettingsError, match=rf"^PORT {settings.port} is taken"):
            check_port(settings)
    check_port(settings)


@pytest.mark.slow
def test_make_run_says_first_that_the_port_is_taken(sqlite_url):
    """The check is one line on stderr, exit code 1, and nothing is started or printed."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        for arguments in (["check"], []):
            done = subprocess.run(
                [sys.executable, "-m", "jobs.dev", *arguments],
                cwd=ROOT,
                env=child_environ(sqlite_url, PORT=str(port)),
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert (done.returncode, done.stdout) == (1, "")
            assert done.stderr.startswith(f"error: PORT {port} is taken")
            assert done.stderr.count("\n") == 1


def test_make_run_checks_the_port_before_all_else():
    """The first command of ``make run`` is the check."""
    recipe = (ROOT / "Makefile").read_text().partition("\nrun: ")[2].splitlines()
    assert recipe[1].strip() == "@$(BIN)/python -m jobs.dev check"


@pytest.mark.slow
def test_the_server_names_host_in_its_error(sqlite_url):
    """gunicorn does not start on an address that is not of this machine, and says HOST."""
    done = subprocess.run(
        [sys.executable, "-m", "gunicorn", "wsgi:app"],
        cwd=ROOT,
        env=child_environ(sqlite_url, HOST="203.0.113.7"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert done.stderr.startswith("error: HOST cannot be bound")
    assert "Traceback" not in done.stderr
