"""The deployment files agree with the service and give it no more than it needs.

No image is built here and nothing is booted: files are read, and the tools that know their
formats are asked where a machine has them.
"""

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml

from app.config.settings import ROOT, Settings
from app.errors import SettingsError
from app.factory import create_app
from tests.support.command_line import Runner
from tests.support.databases import conninfo
from tests.support.deploy_files import (
    COMPOSE,
    CONTAINERS,
    DEPLOY,
    EXAMPLE,
    HOME,
    MANIFESTS,
    PODS,
    UNITS,
    WEB,
    commands,
    dockerfile,
    environment,
    graceful_timeout,
    image,
    is_ignored,
    manifest,
    packed,
    unit,
)
from tests.support.postgresql import binaries
from tests.support.settings import child_environ, make_settings
from tests.test_docs import variables

SOCKET = DEPLOY / "agentidp-analytics-web.socket"

# What is read by others: libpq, the image of PostgreSQL, and Python.
OTHERS = {"PGPASSWORD", "POSTGRES_USER", "POSTGRES_PASSWORD", "POSTGRES_DB"}
OTHERS |= {"POSTGRES_INITDB_ARGS", "PATH", "PYTHONDONTWRITEBYTECODE"}


# The image


def test_the_image_has_only_the_needed_files():
    """The image holds every package and no file that is not needed."""
    copied = {
        source
        for name, rest in dockerfile()
        if name == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    }
    # The client library is for providers.
    assert copied == {*packed(), "requirements.txt"} - {"agentidp_analytics"}
    for source in copied:
        files = [path for path in (ROOT / source).rglob("*") if "__pycache__" not in path.parts]
        for file in [ROOT / source, *files]:
            assert not is_ignored(str(file.relative_to(ROOT))), file
    others = [".git/config", ".venv/bin/python", "tests/conftest.py", "instance/secret_key"]
    for path in [*others, "deploy/.env", "app/__pycache__/config.cpython-311.pyc"]:
        assert is_ignored(path), path


def test_the_image_installs_only_pinned_packages():
    """The image installs only packages of the lock file, each checked by its hash."""
    (install,) = (rest for name, rest in dockerfile() if name == "RUN" and "install" in rest)
    assert "--require-hashes" in install
    assert "--only-binary :all:" in install
    assert install.endswith("-r requirements.txt")


def test_the_image_runs_without_root_and_stops_as_gunicorn_does():
    (user,) = image("USER")
    assert re.fullmatch(r"[1-9][0-9]{3,}:[1-9][0-9]{3,}", user)
    assert image("STOPSIGNAL") == ["SIGTERM"]
    assert image("RUN") == []
    assert {"APP_ENV=production", "HOST=0.0.0.0"} <= set(" ".join(image("ENV")).split())


@pytest.mark.slow
def test_the_copied_files_suffice_and_stay_unchanged(tmp_path: Path, postgresql_url: str):
    """The files copied into the image suffice to run, and running adds no file."""
    tree = tmp_path / "copy"
    tree.mkdir()
    for name in packed():
        source, ignore = ROOT / name, shutil.ignore_patterns("__pycache__")
        if source.is_dir():
            shutil.copytree(source, tree / name, ignore=ignore)
        else:
            shutil.copy(source, tree / name)
    before = sorted(tree.rglob("*"))
    environ = child_environ(postgresql_url, APP_ENV="production", PYTHONDONTWRITEBYTECODE="1")
    for command in (["flask", "db", "upgrade"], ["gunicorn", "--check-config", "wsgi:app"]):
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=tree,
            env=environ,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert sorted(tree.rglob("*")) == before


# What is set and started


def test_every_variable_that_is_set_is_read():
    read = variables(ROOT / "app/config/settings.py") | variables(ROOT / "app/config/parsing.py")
    found = environment()
    assert {"DATABASE_URL", "SECRET_KEY", "JWT_SECRET_KEY", "TRUSTED_PROXIES", "HOST"} <= found
    assert found - read - OTHERS == set()


@pytest.mark.parametrize("name", ["SECRET_KEY", "JWT_SECRET_KEY"])
def test_production_refuses_the_secrets_of_the_example(name: str):
    lines = re.findall(r"^([A-Z_]+)=(.*)$", EXAMPLE.read_text(), re.MULTILINE)
    filled = dict(lines) | {"SECRET_KEY": "s" * 48, "JWT_SECRET_KEY": "j" * 48}
    assert Settings.from_environ(filled).production
    with pytest.raises(SettingsError, match=f"^{name} is a known default"):
        Settings.from_environ(filled | {name: dict(lines)[name]})


def test_the_example_is_portable():
    """systemd, Compose and Kubernetes read the example file alike."""
    for line in EXAMPLE.read_text().splitlines():
        assert re.fullmatch(r"|# .*|#?[A-Z_]+=[^\s'\"$\\#]*", line), line


@pytest.mark.slow
def test_every_command_exists(sqlite_url: str):
    run = Runner(child_environ(sqlite_url))
    started = {" ".join(words).removeprefix(f"{HOME}/.venv/bin/") for words in commands()}
    assert {"flask db upgrade", "python -m jobs"} <= started
    for command in sorted(started):
        match command.split():
            case ["flask", *words]:
                assert run(*words, "--help").returncode == 0, command
            case ["python", "-m", module]:
                assert importlib.util.find_spec(f"{module}.__main__"), command
            case ["gunicorn", *words]:
                check = [sys.executable, "-m", "gunicorn", *words, "--check-config"]
                subprocess.run(check, cwd=ROOT, env=child_environ(sqlite_url), check=True)
            case words:
                assert words == ["/bin/kill", "-HUP", "$MAINPID"]


def test_ports_and_probes_are_those_of_the_service(sqlite_url: str):
    settings = make_settings(sqlite_url)
    app = create_app(settings)
    app.extensions["analytics"].database.dispose()
    routes = {rule.rule for rule in app.url_map.iter_rules()}
    port = settings.port
    assert "PORT" not in environment()

    (check,) = image("HEALTHCHECK")
    probed = re.search(r"'PORT', '(\d+)'\).*'(/\w+)'", check)
    assert probed
    assert int(probed[1]) == port
    assert image("EXPOSE") == [str(port)]

    web, *_metrics = COMPOSE["services"]["web"]["ports"]
    assert web == f"127.0.0.1:{port}:{port}"

    assert WEB["ports"][0] == {"name": "http", "containerPort": port}
    assert re.findall(r"^ListenStream=(.*)$", SOCKET.read_text(), re.M) == [f"127.0.0.1:{port}"]
    # Only readiness asks for the database: no restart brings it back.
    paths = {"startupProbe": "/health", "livenessProbe": "/health", "readinessProbe": "/ready"}
    for name, path in paths.items():
        assert WEB[name]["httpGet"] == {"path": path, "port": "http"}
    assert {probed[2], *paths.values()} <= routes


def test_metrics_are_served_where_they_are_scraped():
    """Compose and Kubernetes set the address of each process's metrics, and open its port."""
    variables = {"web": "METRICS_BIND", "jobs": "JOBS_METRICS_BIND"}
    (port,) = {ports["containerPort"] for ports in WEB["ports"] if ports["name"] == "metrics"}
    for number, (name, variable) in enumerate(variables.items()):
        service = COMPOSE["services"][name]
        assert service["environment"][variable] == f"0.0.0.0:{port}"
        assert service["environment"]["DATABASE_URL"].startswith("postgresql://")
        assert f"127.0.0.1:{port + number}:{port}" in service["ports"]
        assert manifest("ConfigMap")["data"][variable] == f"0.0.0.0:{port}"
        container = CONTAINERS[f"agentidp-analytics-{name}"]
        assert {"name": "metrics", "containerPort": port} in container["ports"]
    assert [name for name, s in COMPOSE["services"].items() if "ports" in s] == ["web", "jobs"]
    assert all(port.startswith("127.0.0.1:") for s in ("web", "jobs") for port in ports_of(s))

    service, monitor = yaml.safe_load_all((DEPLOY / "kubernetes-metrics.yaml").read_text())
    for pod in ("agentidp-analytics-web", "agentidp-analytics-jobs"):
        labels = PODS[pod]["metadata"]["labels"]
        assert service["spec"]["selector"].items() <= labels.items()
    assert service["spec"]["ports"] == [{"name": "metrics", "port": port, "targetPort": "metrics"}]
    assert monitor["spec"]["selector"]["matchLabels"] == service["metadata"]["labels"]
    assert [endpoint["port"] for endpoint in monitor["spec"]["endpoints"]] == ["metrics"]


def ports_of(service: str) -> list[str]:
    ports: list[str] = COMPOSE["services"][service]["ports"]
    return ports


@pytest.mark.parametrize("status", [200, 503])
def test_the_image_is_healthy_as_the_web_answers(status: int):
    """The image's health check asks the web itself, even if a proxy is set for the container."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/health" else 404)
            self.end_headers()

        def log_message(self, *_args: object) -> None:
            pass

    (check,) = image("HEALTHCHECK")
    _python, *arguments = json.loads(check[check.index("[") :])
    with HTTPServer(("127.0.0.1", 0), Answer) as web:
        thread = threading.Thread(target=web.serve_forever, args=(0.02,))
        thread.start()
        proxy = "http://127.0.0.1:9"  # nothing listens there
        environ = os.environ | {
            "PORT": str(web.server_port),
            "http_proxy": proxy,
            "ALL_PROXY": proxy,
        }
        environ.pop("no_proxy", None)
        done = subprocess.run(
            [sys.executable, *arguments], env=environ, capture_output=True, timeout=60, check=False
        )
        web.shutdown()
        thread.join()
    assert (done.returncode == 0) is (status == 200), done.stderr


def test_stopping_is_given_longer_than_gunicorn_gives_requests():
    graceful = graceful_timeout()
    for settings in UNITS.values():
        assert settings["KillSignal"] == ["SIGTERM"]
        assert int(settings["TimeoutStopSec"][0]) > graceful
    for name in ("web", "jobs"):
        assert int(COMPOSE["services"][name]["stop_grace_period"].removesuffix("s")) > graceful
        pod = PODS[f"agentidp-analytics-{name}"]["spec"]
        before = WEB["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert pod["terminationGracePeriodSeconds"] > graceful + before


# No more than is needed

HARDENED = {
    "DynamicUser": ["yes"],
    "NoNewPrivileges": ["yes"],
    "CapabilityBoundingSet": [""],
    "ProtectSystem": ["strict"],
    "ProtectHome": ["yes"],
    "PrivateTmp": ["yes"],
    "PrivateDevices": ["yes"],
    "RestrictAddressFamilies": ["AF_INET AF_INET6 AF_UNIX"],
    "RestrictNamespaces": ["yes"],
    "MemoryDenyWriteExecute": ["yes"],
    "SystemCallFilter": ["@system-service", "~@privileged @resources"],
    "SystemCallArchitectures": ["native"],
}


@pytest.mark.parametrize("process", UNITS)
def test_units_are_hardened_and_never_migrate(process: str):
    """All units are hardened alike, restart always and never migrate."""
    settings = UNITS[process]
    assert {name: settings.get(name) for name in HARDENED} == HARDENED
    own = {"Type", "ExecStart", "ExecReload", "KillMode"}
    web = UNITS["web"]
    assert {n: v for n, v in settings.items() if n not in own} == {
        n: v for n, v in web.items() if n not in own
    }
    assert settings["EnvironmentFile"] == ["/etc/agentidp-analytics.env"]
    assert settings["WorkingDirectory"] == [HOME]
    assert settings["Restart"] == ["always"]
    assert "ExecStartPre" not in settings


def test_compose_containers_are_locked_down():
    """Every Compose container is locked down, and web and jobs wait for the migration."""
    services = COMPOSE["services"]
    assert services.keys() == {"database", "migrate", "web", "jobs"}
    for service in services.values():
        assert service["read_only"] is True
        assert "/tmp" in service["tmpfs"]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert not service.keys() & {"privileged", "cap_add", "network_mode", "pid", "devices"}
    for name in ("web", "jobs"):
        waits = {"migrate": {"condition": "service_completed_successfully"}}
        assert services[name]["depends_on"] == waits
    assert COMPOSE["networks"]["database"] == {"internal": True}
    assert services["database"]["networks"] == ["database"]


@pytest.mark.parametrize("name", PODS)
def test_every_pod_is_locked_down(name: str):
    pod, container = PODS[name]["spec"], CONTAINERS[name]
    assert len(pod["containers"]) == 1
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert image("USER") == ["{runAsUser}:{runAsGroup}".format(**pod["securityContext"])]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"].keys() == {"requests", "limits"}
    assert [volume.keys() for volume in pod["volumes"]] == [{"name", "emptyDir"}]
    mounts = [{"name": pod["volumes"][0]["name"], "mountPath": "/tmp"}]
    assert container["volumeMounts"] == mounts
    assert {"secretRef": {"name": "agentidp-analytics"}} in container["envFrom"]


def test_secrets_are_referred_to_and_never_contained():
    assert "Secret" not in {m["kind"] for m in MANIFESTS}
    values = manifest("ConfigMap")["data"].keys()
    assert not values & {"SECRET_KEY", "JWT_SECRET_KEY", "DATABASE_URL", "PGPASSWORD"}
    assert COMPOSE["services"]["database"]["environment"]["POSTGRES_PASSWORD"].startswith("${")
    assert "\n.env\n" in (ROOT / ".gitignore").read_text()


def test_selectors_select_the_pods_that_they_are_for():
    for deployment in (m for m in MANIFESTS if m["kind"] == "Deployment"):
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert deployment["spec"]["selector"]["matchLabels"] == labels
    web = PODS["agentidp-analytics-web"]
    labels = web["metadata"]["labels"]
    (spread,) = web["spec"]["topologySpreadConstraints"]
    assert spread["labelSelector"]["matchLabels"] == labels
    assert manifest("Service")["spec"]["selector"] == labels
    assert manifest("Service")["spec"]["ports"][0]["targetPort"] == WEB["ports"][0]["name"]
    assert manifest("PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == labels
    policy = manifest("NetworkPolicy")["spec"]
    for pod in PODS.values():
        assert policy["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    everybody, monitoring = policy["ingress"]
    assert everybody == {"ports": [{"protocol": "TCP", "port": "http"}]}
    assert monitoring["ports"] == [{"protocol": "TCP", "port": "metrics"}]
    assert monitoring["from"]


# The nightly backup


def test_the_backup_unit_is_hardened_like_the_others():
    """It may write in its own folder, and differs from the web only in what it runs and when."""
    settings, web = unit("backup"), UNITS["web"]
    assert {name: settings.get(name) for name in HARDENED} == HARDENED
    own = {"Type", "ExecStart", "ExecReload", "KillMode", "KillSignal", "TimeoutStopSec", "Restart"}
    own |= {"RestartSec", "StateDirectory", "StateDirectoryMode", "EnvironmentFile"}
    assert {n: v for n, v in settings.items() if n not in own} == {
        n: v for n, v in web.items() if n not in own
    }
    assert settings["Type"] == ["oneshot"]
    assert settings["StateDirectoryMode"] == ["0700"]
    timer = (DEPLOY / "agentidp-analytics-backup.timer").read_text()
    assert "OnCalendar=*-*-* 02:30:00" in timer
    assert "Persistent=true" in timer


def nightly_commands():
    """The shell commands of the unit and of the CronJob, with a folder in place of their own."""
    (line,) = unit("backup")["ExecStart"]
    shell, option, command = shlex.split(line)
    assert (shell, option) == ("/bin/sh", "-c")
    cron = manifest("CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = cron["containers"]
    assert container["command"] == ["sh", "-euc"]
    return {"systemd": command.replace("%%", "%"), "kubernetes": container["args"][0]}


@pytest.mark.slow
@pytest.mark.parametrize("platform", ["systemd", "kubernetes"])
def test_the_nightly_command_makes_a_backup(platform: str, postgresql_url: str, tmp_path: Path):
    """Run as it stands, twice on one day: one file that pg_restore can read."""
    command = nightly_commands()[platform]
    command = command.replace(f"{HOME}/.venv/bin/flask", f"{sys.executable} -m flask")
    command = command.replace("/backup/", f"{tmp_path}/")
    url = conninfo(postgresql_url).replace("postgresql:", "postgresql+psycopg:", 1)
    environ = child_environ(url, STATE_DIRECTORY=str(tmp_path))
    environ["PATH"] = f"{binaries()}:{environ['PATH']}"
    for _ in range(2):
        subprocess.run(["sh", "-euc", command], env=environ, cwd=ROOT, check=True, timeout=120)
    (file,) = tmp_path.iterdir()
    assert re.fullmatch("analytics-(Mon|Tue|Wed|Thu|Fri|Sat|Sun).backup", file.name)
    assert file.stat().st_mode & 0o777 == 0o600
    subprocess.run([binaries() / "pg_restore", "--file=/dev/null", file], check=True, timeout=60)


def test_the_backup_pod_is_locked_down():
    """It runs without root and rights, and writes into its volume only."""
    pod = manifest("CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert [mount["mountPath"] for mount in container["volumeMounts"]] == ["/backup"]
    claim = manifest("PersistentVolumeClaim")["metadata"]["name"]
    assert pod["volumes"][0]["persistentVolumeClaim"] == {"claimName": claim}


# Tools that know the formats


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="there is no systemd-analyze")
@pytest.mark.parametrize("process", UNITS)
@pytest.mark.slow
def test_systemd_takes_the_units_and_finds_them_hardened(process: str, tmp_path: Path):
    text = (DEPLOY / f"agentidp-analytics-{process}.service").read_text()
    copy = tmp_path / f"agentidp-analytics-{process}.service"
    # It looks for the programs, which are where these tests run.
    copy.write_text(text.replace(f"{HOME}/.venv", sys.prefix).replace(HOME, str(ROOT)))
    shutil.copy(SOCKET, tmp_path)
    sockets = [str(tmp_path / SOCKET.name)] if process == "web" else []
    for check in (
        ["verify", "--man=no", *sockets],
        ["security", "--offline=yes", "--threshold=15"],
    ):
        done = subprocess.run(
            ["systemd-analyze", "--no-pager", *check, str(copy)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, ""), done.stdout


def has_compose() -> bool:
    docker = shutil.which("docker")
    command = [docker or "false", "compose", "version"]
    return not subprocess.run(command, capture_output=True, check=False).returncode


@pytest.mark.skipif(not has_compose(), reason="there is no docker with compose")
def test_compose_takes_its_file(tmp_path: Path):
    shutil.copy(DEPLOY / "compose.yaml", tmp_path)
    text = EXAMPLE.read_text()
    check = ["docker", "compose", "config", "--quiet"]
    (tmp_path / ".env").write_text(text)
    environ = {name: value for name, value in os.environ.items() if name != "PGPASSWORD"}
    refused = subprocess.run(check, cwd=tmp_path, env=environ, capture_output=True, check=False)
    assert b"PGPASSWORD" in refused.stderr  # no database without a password
    (tmp_path / ".env").write_text(text.replace("PGPASSWORD=", "PGPASSWORD=password"))
    subprocess.run(check, cwd=tmp_path, env=environ, check=True)
