#!/usr/bin/env python3
"""Print the YAML of a Volcano job or of a single pod. Standard library only; vsubmit.sh, devbox.sh and copy2pvc.sh call
it and hand the result to kubectl.

Every text is written as a JSON string, so quotes, colons and spaces in names and arguments survive.
"""

import argparse
import json
import sys
from typing import Any

MOUNT = "/data"
PORT = 23456
GRACE_SECONDS = 120
"""Between SIGTERM and SIGKILL: the time to finish a step and save."""


def to_yaml(value: Any, indent: int = 0) -> str:
    """Block style YAML of dicts, lists, strings and whole numbers."""
    pad = "  " * indent
    if isinstance(value, dict) and value:
        return "".join(f"\n{pad}{key}:{to_yaml(item, indent + 1)}" for key, item in value.items())
    if isinstance(value, list) and value:
        items = (to_yaml(item, indent + 1) for item in value)
        return "".join(f"\n{pad}- {item.lstrip()}" for item in items)
    return f" {json.dumps(value)}"


def unexpanded(text: str) -> str:
    """Kubernetes replaces $(NAME) in commands and values of variables; $$ stands for one $."""
    return text.replace("$", "$$")


def variable(pair: str) -> dict[str, str]:
    name, _, value = pair.partition("=")
    return {"name": name, "value": unexpanded(value)}


def resources(options: argparse.Namespace) -> dict[str, Any]:
    """Requests equal limits: the pod gets exactly this and is the last to be evicted."""
    amounts = {"cpu": options.cpus, "memory": options.memory}
    if options.gpus:
        amounts["nvidia.com/gpu"] = str(options.gpus)
    if options.rdma:
        amounts[options.rdma_resource] = str(options.rdma)
    return {"requests": amounts, "limits": dict(amounts)}


def pod_spec(options: argparse.Namespace) -> dict[str, Any]:
    container: dict[str, Any] = {
        "name": "main",
        "image": options.image,
        "command": [unexpanded(word) for word in options.command],
        "env": [variable(pair) for pair in options.env],
        "resources": resources(options),
        "volumeMounts": [{"name": "data", "mountPath": MOUNT}, {"name": "dshm", "mountPath": "/dev/shm"}],
    }
    if options.workdir:
        container["workingDir"] = options.workdir
    if options.secret:
        container["envFrom"] = [{"secretRef": {"name": name}} for name in options.secret]
    if options.rdma:
        container["securityContext"] = {"capabilities": {"add": ["IPC_LOCK"]}}
    return {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "containers": [container],
        "volumes": [
            {"name": "data", "persistentVolumeClaim": {"claimName": options.pvc}},
            {"name": "dshm", "emptyDir": {"medium": "Memory"}},  # NCCL and data loaders share memory there
        ],
    }


def pod(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": options.name, "namespace": options.namespace},
        "spec": pod_spec(options),
    }


def job(options: argparse.Namespace) -> dict[str, Any]:
    """One pod per node: a master and `nodes - 1` workers, on different hosts, started together or not at all."""
    labels = {"app": options.name}
    spec = pod_spec(options)
    restarts = "metadata.annotations['volcano.sh/job-retry-count']"
    spec["containers"][0]["env"] += [
        {"name": "PYTORCH_ALLOC_CONF", "value": "expandable_segments:True"},
        {"name": "JOB_RESTART_COUNT", "valueFrom": {"fieldRef": {"fieldPath": restarts}}},
    ]
    apart = {"labelSelector": {"matchLabels": labels}, "topologyKey": "kubernetes.io/hostname"}
    spec["affinity"] = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [apart]}}

    def task(name: str, replicas: int) -> dict[str, Any]:
        return {"name": name, "replicas": replicas, "template": {"metadata": {"labels": labels}, "spec": spec}}

    tasks = [task("master", 1)]
    tasks[0]["policies"] = [{"event": "TaskCompleted", "action": "CompleteJob"}]
    if options.nodes > 1:
        tasks.append(task("worker", options.nodes - 1))
    after_failure = "RestartJob" if options.restartable else "TerminateJob"
    return {
        "apiVersion": "batch.volcano.sh/v1alpha1",
        "kind": "Job",
        "metadata": {"name": options.name, "namespace": options.namespace},
        "spec": {
            "schedulerName": "volcano",
            "queue": options.queue,
            "minAvailable": options.nodes,
            "maxRetry": options.max_retry,
            "plugins": {
                "ssh": [],
                "svc": [],
                "env": [],
                "pytorch": ["--master=master", "--worker=worker", f"--port={PORT}"],
            },
            "policies": [
                {"event": "PodFailed", "action": after_failure},
                {"event": "PodEvicted", "action": after_failure},
            ],
            "tasks": tasks,
        },
    }


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("kind", choices=["job", "pod"])
    for name in ("name", "namespace", "pvc", "image", "cpus", "memory"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--gpus", type=int, default=0)
    parser.add_argument("--rdma", type=int, default=0)
    parser.add_argument("--rdma-resource", default="rdma/hca")
    parser.add_argument("--queue", default="default")
    parser.add_argument("--max-retry", type=int, default=3)
    parser.add_argument("--restartable", action="store_true")
    parser.add_argument("--workdir")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--secret", action="append", default=[], help="variables from a Kubernetes secret")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args(argv)
    print(to_yaml(job(options) if options.kind == "job" else pod(options)).lstrip("\n"))


if __name__ == "__main__":
    main(sys.argv[1:])
