#!/usr/bin/env python3
"""What is deployed, read by other people's checkers: chart, task definition, templates, workflow."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import helm_python
import jsonschema
import yaml
from cfnlint.decode import cfn_yaml

import peers
from peers import Stage, expect, expect_that

ROOT = peers.HERE.parents[1]
DEPLOY = ROOT / "docker/deploy"
CHART = DEPLOY / "helm"
BIN = Path(helm_python.__file__).parents[4] / "bin"
POLICY = "roles: { reader: { grants: [{ container: shop/orders, operations: [items/read] }] } }\n"
KUBERNETES = ("1.30", "1.33")
# Ways to install the chart, and the kinds of objects that each makes.
WAYS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "stand-alone": ({}, ["ConfigMap", "StatefulSet", "Service", "PodDisruptionBudget", "NetworkPolicy"]),
    "stand-alone behind a terminator": (
        {"tlsSecret": "", "networkPolicy": {"enabled": False}},
        ["ConfigMap", "StatefulSet", "Service", "PodDisruptionBudget"],
    ),
    "stand-alone and scraped": (
        {"monitoring": {"enabled": True, "from": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}]}},
        ["ConfigMap", "StatefulSet", "Service", "PodDisruptionBudget", "NetworkPolicy"],
    ),
    "sidecar with policies in a ConfigMap": (
        {"mode": "sidecar", "policies": {"source": "configMap", "files": {"orders.yaml": "roles: {}\n"}}},
        ["ConfigMap", "ConfigMap", "Deployment"],
    ),
    "sidecar with policies from git": (
        {"mode": "sidecar", "policies": {"git": {"secret": "policies-repository"}}},
        ["ConfigMap", "Deployment"],
    ),
}


def content(*argv: str) -> str:
    """Runs a checker, which must be content."""
    ran = subprocess.run(argv, capture_output=True, text=True, timeout=peers.PATIENCE, check=False)
    expect(ran.returncode, 0, f"exit code of {' '.join(argv)}\n{ran.stdout}{ran.stderr}")
    return ran.stdout


class Deploy:
    """Every file that somebody installs from."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    def checks(self) -> list[tuple[str, Callable[[], None]]]:
        """Every check with its name."""
        return [
            ("helm finds nothing to say about the chart", self.lint),
            *((f"Kubernetes takes the chart: {way}", lambda way=way: self.kubernetes(way)) for way in WAYS),
            *((f"the gateway takes its configuration: {way}", lambda way=way: self.configuration(way)) for way in WAYS),
            ("every container is confined, and the gateway is given time to drain", self.confined),
            ("a chart that would open the admin listener without TLS is refused", self.refused),
            ("cfn-lint finds nothing to say about the template", self.template),
            ("statelint and asl-validator take the workflow in it", self.workflow),
            ("the task definition names what exists", self.task),
            ("hadolint finds nothing to say about the Dockerfile", self.dockerfile),
        ]

    def dockerfile(self) -> None:
        """Every rule, also those that only inform."""
        content(str(BIN / "hadolint"), "--failure-threshold", "info", str(ROOT / "docker/Dockerfile"))

    def lint(self) -> None:
        """As `helm lint --strict`."""
        for way, (values, _) in WAYS.items():
            report = helm_python.lint(str(CHART), values, strict=True)
            said = [m for m in report["messages"] if "icon is recommended" not in json.dumps(m)]
            expect((report["errors"], said), ([], []), way)

    def render(self, way: str) -> list[dict[str, Any]]:
        """The objects that the chart makes."""
        chart = helm_python.Chart.load(str(CHART))
        rendered = chart.render(WAYS[way][0], name="gate", namespace="stepgate")
        return [one for text in rendered.values() for one in yaml.safe_load_all(text) if one]

    def kubernetes(self, way: str) -> None:
        """Against the schemas of two versions."""
        made = self.render(way)
        expect(sorted(one["kind"] for one in made), sorted(WAYS[way][1]), "kinds")
        file = self.stage.path("manifests.yaml")
        file.write_text(yaml.safe_dump_all(made))
        for version in KUBERNETES:
            content(str(BIN / "kubernetes-validate"), "-k", version, "--strict", str(file))

    def configuration(self, way: str) -> None:
        """`stepgate check`, with the paths of the container moved into a directory."""
        text = next(one["data"]["stepgate.yaml"] for one in self.render(way) if "stepgate.yaml" in one.get("data", {}))
        jsonschema.validate(yaml.safe_load(text), json.loads((ROOT / "config/stepgate.schema.json").read_text()))
        home = self.stage.path("container")
        for name in ("etc/stepgate/secrets", "var/lib/stepgate", "policies/current/policies"):
            (home / name).mkdir(parents=True)
        (home / "etc/stepgate/secrets/account-key").write_text(peers.EMULATOR_KEY)
        (home / "etc/stepgate/secrets/admin-token").write_text("a-token-of-thirty-two-characters")
        (Path(f"{home}{yaml.safe_load(text)['policies']['directory']}") / "orders.yaml").write_text(POLICY)
        file = home / "stepgate.yaml"
        file.write_text(re.sub(r"(?<= )/(?=etc|var|policies)", f"{home}/", text))
        checked = peers.stepgate("check", "--config", str(file))
        expect(checked.returncode, 0, f"exit code of `check`\n{checked.stdout}{checked.stderr}")

    def pods(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The pod of every way."""
        for way in WAYS:
            for one in self.render(way):
                if one["kind"] in ("StatefulSet", "Deployment"):
                    yield way, one["spec"]["template"]["spec"]

    def confined(self) -> None:
        """No root, nothing to write to but volumes, no capability, no token of the cluster."""
        for way, pod in self.pods():
            expect(pod["securityContext"]["runAsNonRoot"], True, way)
            expect(pod["automountServiceAccountToken"], False, way)
            for container in [*pod.get("initContainers", []), *pod["containers"]]:
                if container["name"] == "app":
                    continue
                wanted = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True}
                wanted["capabilities"] = {"drop": ["ALL"]}
                expect(container["securityContext"], wanted, f"{way}: {container['name']}")
            [gateway] = [container for container in pod["containers"] if container["name"] == "stepgate"]
            sleep = gateway["lifecycle"]["preStop"]["sleep"]["seconds"]
            expect_that(pod["terminationGracePeriodSeconds"] >= sleep + 65 + 10, f"{way}: time to drain")
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                asked = gateway[probe].get("exec", gateway[probe].get("httpGet"))
                expect_that(asked is not None, f"{way}: {probe}")

    def refused(self) -> None:
        """It fails while it renders, not in the cluster."""
        chart = helm_python.Chart.load(str(CHART))
        try:
            chart.render({"tlsSecret": "", "monitoring": {"enabled": True}}, name="gate", namespace="stepgate")
        except helm_python.HelmError as error:
            expect_that("monitoring wants tlsSecret" in str(error), f"it says why ({error})")
        else:
            raise peers.Failure("it is rendered")

    def template(self) -> None:
        """Warnings count."""
        content(str(BIN / "cfn-lint"), "--non-zero-exit-code", "informational", str(DEPLOY / "aws/workflow.yaml"))

    def workflow(self) -> None:
        """The state machine with its substitutions made."""
        template = cfn_yaml.load(str(DEPLOY / "aws/workflow.yaml"))
        text = json.dumps(template["Resources"]["Workflow"]["Properties"]["Definition"])
        text = text.replace("${endpoint}", "https://stepgate.example.com")
        text = text.replace("${connection}", "arn:aws:events:us-east-1:111122223333:connection/stepgate/1")
        expect_that("${" not in text, "every substitution is made")
        file = self.stage.path("workflow.asl.json")
        file.write_text(text)
        content(str(BIN / "statelint"), str(file))
        content("node", str(peers.MODULES / ".bin/asl-validator"), "--json-path", str(file))

    def task(self) -> None:
        """Volumes, dependencies and overrides."""
        task = json.loads((DEPLOY / "ecs/task-definition.json").read_text())
        containers = {container["name"]: container for container in task["containerDefinitions"]}
        volumes = {volume["name"] for volume in task["volumes"]}
        schema = json.loads((ROOT / "config/stepgate.schema.json").read_text())
        for name, container in containers.items():
            mounted = {mount["sourceVolume"] for mount in container.get("mountPoints", [])}
            expect(mounted - volumes, set(), f"volumes of {name}")
            waits = {dependency["containerName"] for dependency in container.get("dependsOn", [])}
            expect(waits - containers.keys(), set(), f"what {name} waits for")
        gateway = containers["stepgate"]
        expect(gateway["readonlyRootFilesystem"], True, "its root")
        expect_that(gateway["stopTimeout"] >= 75, "time to drain")
        expect(gateway["healthCheck"]["command"], ["CMD", "/stepgate", "health"], "its health check")
        for variable in gateway["environment"]:
            prefix, section, *keys = variable["name"].lower().split("__")
            expect_that(prefix == "stepgate" and section in schema["properties"], f"{variable['name']} is a key")
            about = schema["properties"][section]
            for key in keys:
                name = about.get("$ref", "").rpartition("/")[2]
                about = schema["$defs"][name]["properties"].get(key) if name else None
                expect_that(about is not None, f"{variable['name']} is a key")


def scene(stage: Stage) -> list[tuple[str, Callable[[], None]]]:
    """Nothing runs."""
    return Deploy(stage).checks()


if __name__ == "__main__":
    peers.run("deploy", scene)
