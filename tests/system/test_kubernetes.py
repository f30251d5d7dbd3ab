"""The graph through Snakemake's Kubernetes executor, against an API server of our own that runs
each pod's command here; no real cluster"""

import os
import shutil

import pytest
import yaml
from conftest import ROOT, fairparse
from kubernetes_api import Cluster

pytest.importorskip("snakemake_executor_plugin_kubernetes")
HERE = ROOT / "nbs" / "workflow" / "clusters" / "kubernetes"


@pytest.fixture
def cluster(tmp_path):
    running = Cluster(tmp_path)
    yield running
    running.close()


def reproduce(root, cluster, *options):
    folder = shutil.copytree(HERE, cluster.folder / "profile", dirs_exist_ok=True)
    profile = yaml.safe_load((folder / "config.yaml").read_text()) | {
        "latency-wait": 10,
        "seconds-between-status-checks": 1,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(profile))
    return fairparse(
        "reproduce",
        "--profile",
        "toy",
        "--stages",
        "train",
        "--cluster",
        folder,
        "--set",
        "seeds=[0]",
        *options,
        cwd=root,
        env={**os.environ, "KUBECONFIG": str(cluster.kubeconfig)},
    )


def test_pods_ask_for_what_the_profiles_say(toy_root, cluster):
    done = reproduce(
        toy_root, cluster, "--set", "resources={gpu: 2, mem_mb: 900}", "--set", "threads.prepare=4"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (
        toy_root / "outputs" / "toy" / "20_parsers" / "single" / "seed0" / "run.json"
    ).is_file() and not cluster.secrets
    prepare, train = (job["spec"]["template"]["spec"] for job in cluster.jobs.values())
    for pod in (prepare, train):
        (container,) = pod["containers"]
        assert (
            container["image"] == "fairparse:latest"
            and {"name": "fairparse", "mountPath": "/shared"} in container["volumeMounts"]
        )
        assert {"name": "fairparse", "persistentVolumeClaim": {"claimName": "fairparse"}} in pod[
            "volumes"
        ]
        assert (
            container["resources"]["limits"]["memory"]
            == container["resources"]["requests"]["memory"]
            == "900M"
        )
    requested = train["containers"][0]["resources"]
    assert (
        requested["limits"]["nvidia.com/gpu"] == requested["requests"]["nvidia.com/gpu"] == "2"
        and train["tolerations"][0]["key"] == "nvidia.com/gpu"
    )
    requested = prepare["containers"][0]["resources"]
    assert (
        "nvidia.com/gpu" not in requested["limits"]
        and not prepare.get("tolerations")
        and requested["limits"]["cpu"] == "4000m"
    )


def test_a_pod_that_fails_says_why_and_where(toy_root, cluster):
    done = reproduce(toy_root, cluster, "--set", "train.epochs=6", "--set", "threads.prepare=1")
    assert (
        done.returncode == 1
        and "error: 6 epochs are too many: use 5" in done.stderr
        and "kubernetes-logs" in done.stderr
    ), done.stderr
    assert (
        reproduce(
            toy_root, cluster, "--set", "train.epochs=5", "--set", "threads.prepare=1"
        ).returncode
        == 0
    )


def test_the_manifest_has_only_what_kubernetes_knows():
    from kubernetes.client import ApiClient

    client = ApiClient()
    kinds = {
        "PersistentVolumeClaim": "V1PersistentVolumeClaim",
        "ServiceAccount": "V1ServiceAccount",
        "Role": "V1Role",
        "RoleBinding": "V1RoleBinding",
        "Job": "V1Job",
    }
    documents = list(yaml.safe_load_all((HERE / "run.yaml").read_text()))
    assert sorted(d["kind"] for d in documents) == sorted(kinds)
    for document in documents:
        assert (
            client.sanitize_for_serialization(
                client._ApiClient__deserialize(document, kinds[document["kind"]])
            )
            == document
        )  # unknown names would be lost
    profile = yaml.safe_load((HERE / "config.yaml").read_text())
    claim, path = profile["kubernetes-volume-persistent-volumes"].split(":")
    pod = documents[-1]["spec"]["template"]["spec"]
    assert (
        pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == claim
        and pod["containers"][0]["volumeMounts"][0]["mountPath"] == path
        and pod["containers"][0]["image"] == profile["container-image"]
    )
