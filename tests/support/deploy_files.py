"""Readers for the deployment files: Dockerfile, units, compose file and manifests."""

import configparser
import json
import re
import shlex
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml

from app.config.settings import ROOT

DEPLOY = ROOT / "deploy"
HOME = "/opt/agentidp-analytics"
EXAMPLE = DEPLOY / "agentidp-analytics.env.example"


def dockerfile() -> list[tuple[str, str]]:
    """Its instructions, each with its arguments on one line."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in lines if line)]


def image(instruction: str) -> list[str]:
    """The arguments of such instructions in the last stage, the image itself."""
    lines = dockerfile()
    last = max(number for number, (name, _) in enumerate(lines) if name == "FROM")
    return [rest for name, rest in lines[last:] if name == instruction]


def assignments(text: str) -> dict[str, str]:
    """``NAME=value`` lines, also those that are commented out."""
    return dict(re.findall(r"^#?([A-Z][A-Z_]+)=(.*)$", text, re.MULTILINE))


def unit(process: str) -> dict[str, list[str]]:
    """The settings of a unit's service; one may be there several times."""
    text = (DEPLOY / f"agentidp-analytics-{process}.service").read_text()
    section = re.search(r"^\[Service\]\n(.*?)(?:^\[|\Z)", text, re.MULTILINE | re.DOTALL)
    assert section
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^([A-Za-z]+)=(.*)$", section[1], re.MULTILINE):
        found.setdefault(name, []).append(value)
    return found


UNITS = {process: unit(process) for process in ("web", "jobs")}
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
MANIFESTS = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))
PODS = {
    m["metadata"]["name"]: m["spec"]["template"]
    for m in MANIFESTS
    if m["kind"] in ("Deployment", "Job")
}
CONTAINERS = {name: pod["spec"]["containers"][0] for name, pod in PODS.items()}
WEB = CONTAINERS["agentidp-analytics-web"]


def manifest(kind: str) -> dict[str, Any]:
    (found,) = (m for m in MANIFESTS if m["kind"] == kind)
    return found


def environment() -> set[str]:
    """The name of every variable that is set, or may be, for a process."""
    names = set(re.findall(r"([A-Z][A-Z_]+)=", " ".join(image("ENV"))))
    names |= assignments(EXAMPLE.read_text()).keys()
    for service in COMPOSE["services"].values():
        names |= service.get("environment", {}).keys()
    names |= set(re.findall(r"\$\{([A-Z_]+)", (DEPLOY / "compose.yaml").read_text()))
    names |= manifest("ConfigMap")["data"].keys()
    for container in CONTAINERS.values():
        names |= {variable["name"] for variable in container.get("env", [])}
    for settings in UNITS.values():
        names |= assignments("\n".join(settings.get("Environment", []))).keys()
    return names


def commands() -> Iterator[list[str]]:
    """Everything that is started, as lists of words without the folder it is in."""
    yield from (json.loads(command) for command in image("CMD"))
    for settings in UNITS.values():
        for name in ("ExecStart", "ExecReload"):
            yield from (shlex.split(line) for line in settings.get(name, []))
    yield from (s["command"] for s in COMPOSE["services"].values() if "command" in s)
    yield from (c["command"] for c in CONTAINERS.values() if "command" in c)
    document = (ROOT / "docs" / "operate" / "deploying.md").read_text()
    yield from (line.split() for line in re.findall(r"`?(flask [a-z]+ [a-z]+)", document))


def graceful_timeout() -> int:
    found = re.search(
        r"^graceful_timeout = (\d+)$", (ROOT / "app/server/gunicorn_config.py").read_text(), re.M
    )
    assert found
    return int(found[1])


def packed() -> list[str]:
    """What setup.cfg installs, and gunicorn's settings: without these, no start."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    packages = {name.split(".")[0] for name in setup["options"]["packages"].split()}
    modules = {f"{name}.py" for name in setup["options"]["py_modules"].split()}
    return sorted(packages | modules | {"gunicorn.conf.py"})


def is_ignored(path: str) -> bool:
    """By the last pattern of .dockerignore that matches the path or a folder it is in."""
    ignored = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!")
        parts = [path, *map(str, Path(path).parents)][:-1]
        if line and not line.startswith("#") and any(fnmatch(part, pattern) for part in parts):
            ignored = not line.startswith("!")
    return ignored
