"""The built package works outside a checkout as docs/operate/deploying.md says."""

import email
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import urllib.request
import venv
import zipfile
from pathlib import Path

import pytest

from app import __version__
from app.config.settings import ROOT
from tests.support.processes import call, free_port, poll, process

# What a build reads, or must not be bothered by.
FOLDERS = ("agentidp_analytics", "app", "jobs", "migrations")
SOURCES = (*FOLDERS, "wsgi.py", "setup.cfg", "pyproject.toml", "README.md")
NAME = "agentidp_analytics"
PAGE = ROOT / "docs" / "operate" / "deploying.md"


def run(*command, cwd, environ=None):
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=environ,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder with a wheel and a source distribution, built from a copy."""
    copy = tmp_path_factory.mktemp("source")
    for name in (*SOURCES, "LICENSE"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy)
    # It warns of byte code that it may not write.
    environ = {name: os.environ[name] for name in os.environ if name != "PYTHONDONTWRITEBYTECODE"}
    build = (sys.executable, "-W", "error", "-m", "build", "--no-isolation")
    shown = run(*build, cwd=copy, environ=environ)
    assert not re.search("warning|deprecat", shown.stdout + shown.stderr, re.IGNORECASE)
    return copy / "dist"


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """A virtualenv with the wheel in it, and the dependencies of this one."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    site = Path(sysconfig.get_path("purelib", vars={"base": folder}))
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    (wheel,) = built.glob("*.whl")
    options = ("--quiet", "--no-deps", "--no-index", "--disable-pip-version-check")
    run(sys.executable, "-m", "pip", "--python", python, "install", *options, wheel, cwd=folder)
    return python


def files(folder):
    return {
        f"{folder}/{path.relative_to(ROOT / folder)}"
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_wheel_and_source_hold_all_that_runs_and_nothing_else(built):
    (wheel,), (source,) = built.glob("*.whl"), built.glob("*.tar.gz")
    wanted = {"wsgi.py"}.union(*map(files, FOLDERS))
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        described = email.message_from_bytes(
            archive.read(f"{NAME}-{__version__}.dist-info/METADATA")
        )
    assert {name for name in names if ".dist-info/" not in name} == wanted
    assert described["Version"] == __version__
    assert described["Requires-Python"] == ">=3.11"
    with tarfile.open(source) as archive:
        assert {f"{NAME}-{__version__}/{name}" for name in wanted} <= set(archive.getnames())


@pytest.fixture
def place(installed, tmp_path):
    """An empty folder and an environment in which nothing leads to the checkout."""
    kept = {name: os.environ[name] for name in ("HOME", "LANG", "TMPDIR") if name in os.environ}
    path = f"{installed.parent}:/usr/bin:/bin"
    return tmp_path, kept | {"PATH": path, "PORT": str(free_port()), "PYTHONWARNINGS": "error"}


def test_the_steps_of_the_page_work_from_the_wheel(installed, place):
    folder, environ = place
    steps = re.search(r"```sh\n(python3 -m venv venv\n.*?)```", PAGE.read_text(), re.S)
    commands = [line.split("#")[0].split() for line in steps[1].splitlines()]
    assert commands.pop(0) == ["python3", "-m", "venv", "venv"]
    assert commands.pop(0)[:2] == ["venv/bin/pip", "install"]
    script = installed.with_name("agentidp-analytics")
    programs = {"venv/bin/agentidp-analytics": [script], "venv/bin/python": [installed]}
    *flasks, serve = [[*programs[program], *words] for program, *words in commands]
    outputs = [run(*command, cwd=folder, environ=environ).stdout for command in flasks]
    token = re.search(r"^TOKEN=(\S+)$", "\n".join(outputs), re.MULTILINE)[1]
    assert serve[1:] == ["-m", "jobs.dev"]
    with process(serve[2], environ=environ, python=str(installed), cwd=folder):
        base = f"http://127.0.0.1:{environ['PORT']}"
        poll(lambda: call(f"{base}/ready"), lambda answer: answer[0] == 200)
        for path in ("tokens?days=30", "agents/activity", "agents"):
            headers = {"Authorization": f"Bearer {token}"}
            assert call(f"{base}/api/v1/analytics/{path}", headers)[1]["data"]
        for page in ("/docs", "/static/page.css"):
            with urllib.request.urlopen(base + page, timeout=60) as answer:
                assert answer.status == 200
    assert list(folder.iterdir()) == []
    kept = installed.parents[1] / "var" / "agentidp-analytics-instance"
    assert (kept / "analytics.db").exists()
    assert kept.stat().st_mode & 0o77 == 0
    shutil.rmtree(kept)


def test_the_installed_code_is_not_the_checkouts(installed, place):
    folder, environ = place
    show = "import app, wsgi; from app.config.settings import ROOT; "
    show += "print(app.__version__, app.__file__, ROOT)"
    version, *paths = run(installed, "-c", show, cwd=folder, environ=environ).stdout.split()
    assert version == __version__
    assert all(Path(path).is_relative_to(installed.parents[1]) for path in paths)
