"""What Helm makes of the chart in docker/helm/: valid objects, and pods without rights that they do not need.

Helm's own engine renders it. Kubernetes' schemas check the objects, strictly: unknown fields are errors. No
cluster runs them here.
"""

from __future__ import annotations

import re
from typing import Any

import kubernetes_validate
import pytest
import typer.main
import yaml

from refcut_backend.api.operations import PATHS
from refcut_backend.cli.main import app
from refcut_backend.queue.rq_jobs import FUNCTIONS
from refcut_backend.settings import Settings
from tests.support import helm
from tests.support.recorded import REPOSITORY

CHART = REPOSITORY / "docker/helm"
DEFAULTS: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
SECRET = {"existingSecret": "refcut"}
EVERYTHING = SECRET | {
    "image": {
        "repository": "registry.example.com/refcut",
        "tag": "main",
        "pullSecrets": [{"name": "registry"}],
    },
    "settings": {"REFCUT_LABEL_STUDIO_URL": "http://label-studio:8080", "REFCUT_CLICK_TIMEOUT_S": "12"},
    "extraEnvFrom": [{"secretRef": {"name": "s3"}}],
    "modelStore": {"storageClass": "nfs"},
    "web": {"affinity": {"podAntiAffinity": {}}, "podAnnotations": {"a/b": "c"}},
    "worker": {
        "gpu": True,
        "nodeSelector": {"zone": "a"},
        "tolerations": [{"key": "clicks", "operator": "Exists"}],
        "autoscaling": {"enabled": True, "expectedWaitSeconds": 1.5, "metricLabels": {"namespace": "labels"}},
    },
    "trainer": {"enabled": True, "storageClass": "fast"},
    "service": {"annotations": {"a": "b"}},
    "ingress": {"enabled": True, "className": "nginx", "tlsSecret": "refcut-tls"},
    "networkPolicy": {"from": [{"namespaceSelector": {}}]},
    "serviceMonitor": {"enabled": True, "basicAuth": True, "labels": {"release": "prometheus"}},
    "serviceAccount": {"annotations": {"iam": "bucket"}},
}
ELSEWHERE = SECRET | {
    "modelStore": {"url": "s3://bucket/refcut"},
    "networkPolicy": {"enabled": False},
    "serviceAccount": {"existingName": "bucket-reader"},
    "trainer": {"enabled": True, "gpu": False},
}
VALUES = {"defaults": SECRET, "everything": EVERYTHING, "elsewhere": ELSEWHERE}
OPERATOR_KINDS = {"ServiceMonitor"}
"""Kinds of the Prometheus operator, which Kubernetes' own schemas do not have."""
POD_OWNERS = ("Deployment", "StatefulSet")
SETTINGS = {f"REFCUT_{name.upper()}" for name in Settings.model_fields}


def render(values: dict[str, Any]) -> list[dict[str, Any]]:
    """The objects of a release `team` in the namespace `labels`."""
    files = helm.render(CHART, values).files
    texts = [text for name, text in files.items() if name.endswith(".yaml")]
    return [found for text in texts for found in yaml.safe_load_all(text) if found]


def named(values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The objects by `Kind/name`."""
    objects = render(values)
    found = {f"{one['kind']}/{one['metadata']['name']}": one for one in objects}
    assert len(found) == len(objects)
    return found


def pods(values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The pods by component."""
    owners = [one for one in render(values) if one["kind"] in POD_OWNERS]
    return {
        one["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/component"]: one["spec"]["template"][
            "spec"
        ]
        for one in owners
    }


def container(pod: dict[str, Any]) -> dict[str, Any]:
    (only,) = pod["containers"]
    return only


def variables(pod: dict[str, Any]) -> dict[str, dict[str, Any]]:
    environment = container(pod)["env"]
    found = {one["name"]: one for one in environment}
    assert len(found) == len(environment)
    return found


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_helm_finds_nothing_to_complain_about(values: dict[str, Any]):
    report = helm.render(CHART, values).lint
    assert [one["error"] for one in report["messages"]] == ["icon is recommended"]
    assert report["errors"] == []


@pytest.mark.parametrize("version", ["1.27", "1.37"])
@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_every_object_is_valid_in_the_oldest_and_the_newest_kubernetes(values: dict[str, Any], version: str):
    objects = [one for one in render(values) if one["kind"] not in OPERATOR_KINDS]
    assert len(objects) >= 4
    for one in objects:
        kubernetes_validate.validate(one, version, strict=True)


@pytest.mark.parametrize("component", ["web", "worker", "trainer"])
def test_a_pod_writes_to_its_volumes_only_and_has_no_rights(component: str):
    pod = pods(EVERYTHING)[component]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 1000
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert container(pod)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    mounts = {one["mountPath"]: one["name"] for one in container(pod)["volumeMounts"]}
    assert {"/state", "/tmp", "/models"} <= set(mounts)
    assert variables(pod)["TMPDIR"]["value"] == "/tmp"


def test_no_variable_of_a_service_is_taken_for_a_setting():
    for pod in pods(EVERYTHING).values():
        assert pod["enableServiceLinks"] is False, "a service `refcut` would set REFCUT_PORT=tcp://..."


def test_every_variable_is_a_setting_that_exists():
    own = {"TMPDIR", "MPLCONFIGDIR"}
    for pod in pods(EVERYTHING).values():
        assert set(variables(pod)) - own <= SETTINGS


def test_redis_and_database_come_from_the_secret_and_without_them_no_pod_starts():
    for pod in pods(EVERYTHING).values():
        secrets = {
            name: one["valueFrom"]["secretKeyRef"]
            for name, one in variables(pod).items()
            if "valueFrom" in one
        }
        assert {one["name"] for one in secrets.values()} == {"refcut"}
        assert {name for name, one in secrets.items() if not one.get("optional")} == {
            "REFCUT_REDIS_URL",
            "REFCUT_DATABASE_URL",
        }
        hidden = {name for name in SETTINGS if re.search("PASSWORD|SECRET|TOKEN", name)}
        assert hidden <= set(secrets)


def test_a_release_without_a_secret_is_refused_with_what_is_missing():
    with pytest.raises(helm.ChartRefusedError, match="existingSecret is required"):
        render({})


@pytest.mark.parametrize("name", ["REFCUT_REDIS_URL", "REFCUT_BASIC_AUTH_PASSWORD", "REFCUT_STATE_DIR"])
def test_secrets_and_what_the_chart_sets_itself_are_refused_among_the_settings(name: str):
    with pytest.raises(helm.ChartRefusedError, match=rf"settings\.{name} "):
        render(SECRET | {"settings": {name: "x"}})


@pytest.mark.parametrize(
    "values", [{"worker": {"replica": 3}}, {"settings": {"REFCUT_WORKER": 3}}, {"redis": {}}]
)
def test_a_misspelled_or_unknown_value_is_refused(values: dict[str, Any]):
    with pytest.raises(helm.ChartRefusedError, match=r"schema|additional|Invalid type"):
        render(SECRET | values)


def test_every_pod_starts_a_command_and_queues_that_exist():
    commands = set(typer.main.get_group(app).commands)
    arguments = {name: container(pod)["args"] for name, pod in pods(EVERYTHING).items()}
    assert {name: one[0] for name, one in arguments.items()} == {
        "web": "serve",
        "worker": "worker",
        "trainer": "worker",
    }
    assert {one[0] for one in arguments.values()} <= commands
    assert arguments["trainer"][1:] == ["--queues", "training"]
    assert "training" in FUNCTIONS


def test_the_probes_ask_the_routes_for_probes_at_the_port_of_the_service():
    web = container(pods(SECRET)["web"])
    probed = {name: web[f"{name}Probe"]["httpGet"] for name in ("liveness", "startup", "readiness")}
    assert {name: one["path"] for name, one in probed.items()} == {
        "liveness": "/livez",
        "startup": "/livez",
        "readiness": "/readyz",
    }
    assert {one["path"] for one in probed.values()} <= set(PATHS)
    (port,) = web["ports"]
    assert port["containerPort"] == Settings.model_fields["port"].default
    assert {one["port"] for one in probed.values()} == {port["name"]}
    (service_port,) = named(SECRET)["Service/team-refcut"]["spec"]["ports"]
    assert service_port["targetPort"] == port["name"]


def test_the_service_selects_the_pods_of_the_web_server_alone():
    selector = named(EVERYTHING)["Service/team-refcut"]["spec"]["selector"]
    labels = {
        name: one["spec"]["template"]["metadata"]["labels"]
        for name, one in named(EVERYTHING).items()
        if one["kind"] in POD_OWNERS
    }
    assert [name for name, one in labels.items() if selector.items() <= one.items()] == [
        "Deployment/team-refcut-web"
    ]


def test_a_pod_with_a_gpu_asks_for_one_where_there_are_some_and_takes_the_image_with_cuda():
    found = pods(EVERYTHING)
    for component, own_selector in (("worker", {"zone": "a"}), ("trainer", {})):
        pod = found[component]
        assert pod["nodeSelector"] == DEFAULTS["gpu"]["nodeSelector"] | own_selector
        assert DEFAULTS["gpu"]["tolerations"][0] in pod["tolerations"]
        assert container(pod)["resources"]["limits"]["nvidia.com/gpu"] == 1
        assert container(pod)["image"] == "registry.example.com/refcut:main-cuda"
        assert variables(pod)["REFCUT_DEVICE"]["value"] == "cuda"
    assert container(found["web"])["image"] == "registry.example.com/refcut:main"


def test_a_pod_without_a_gpu_goes_anywhere_and_takes_the_image_for_processors():
    for pod in (pods(SECRET)["worker"], pods(ELSEWHERE)["trainer"]):
        assert "nodeSelector" not in pod
        assert "nvidia.com/gpu" not in container(pod)["resources"]["limits"]
        assert container(pod)["image"] == "refcut:0.1.0"
        assert "REFCUT_DEVICE" not in variables(pod)


def test_workers_are_added_by_the_wait_that_the_metric_tells():
    found = named(EVERYTHING)
    scaler = found["HorizontalPodAutoscaler/team-refcut-worker"]["spec"]
    assert f"{scaler['scaleTargetRef']['kind']}/{scaler['scaleTargetRef']['name']}" in found
    (metric,) = scaler["metrics"]
    assert metric["external"]["metric"]["name"] == DEFAULTS["worker"]["autoscaling"]["metric"]
    assert metric["external"]["target"] == {"type": "Value", "value": "1.5"}
    assert "replicas" not in found["Deployment/team-refcut-worker"]["spec"], "it would undo the scaling"


def test_workers_are_added_before_clicks_are_refused_for_their_wait():
    wait_s = DEFAULTS["worker"]["autoscaling"]["expectedWaitSeconds"]
    assert 0 < wait_s < Settings().click_queue_wait_s


def test_all_pods_have_the_same_model_store():
    for values, store in ((EVERYTHING, "/models"), (ELSEWHERE, "s3://bucket/refcut")):
        found = pods(values)
        assert {variables(pod)["REFCUT_MODEL_STORE"]["value"] for pod in found.values()} == {store}
        claims = {
            volume["persistentVolumeClaim"]["claimName"]
            for pod in found.values()
            for volume in pod["volumes"]
            if "persistentVolumeClaim" in volume
        }
        assert claims == ({"team-refcut-models"} if store == "/models" else set())
        assert claims == {
            one["metadata"]["name"] for one in render(values) if one["kind"] == "PersistentVolumeClaim"
        }


def test_trained_versions_outlive_the_release():
    claim = named(SECRET)["PersistentVolumeClaim/team-refcut-models"]
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_a_trainer_keeps_its_snapshots_on_a_volume_of_its_own():
    trainer = named(EVERYTHING)["StatefulSet/team-refcut-trainer"]["spec"]
    (claim,) = trainer["volumeClaimTemplates"]
    assert claim["metadata"]["name"] == "state"
    assert "state" not in {one["name"] for one in trainer["template"]["spec"]["volumes"]}


def test_only_web_servers_accept_connections_and_no_pod_reaches_the_metadata_service():
    policies = [one["spec"] for one in render(SECRET) if one["kind"] == "NetworkPolicy"]
    of = {one["podSelector"]["matchLabels"]["app.kubernetes.io/component"]: one for one in policies}
    assert set(of) == {"web", "worker", "trainer"}
    for component, policy in of.items():
        assert policy["policyTypes"] == ["Ingress", "Egress"]
        assert ("ingress" in policy) == (component == "web")
        blocks = [to["ipBlock"] for rule in policy["egress"] for to in rule.get("to", [])]
        assert "169.254.0.0/16" in blocks[0]["except"]
    assert of["web"]["ingress"] == [{"ports": [{"port": "http"}], "from": [{"podSelector": {}}]}]
