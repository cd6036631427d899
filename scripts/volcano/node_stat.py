#!/usr/bin/env python3
"""Print what is free on each node of the cluster: GPUs, CPUs, memory. --dry-run prints the kubectl commands."""

import argparse
import json
import shlex
import subprocess
import sys
from collections import Counter
from typing import Any

NODES = ["kubectl", "get", "nodes", "-o", "json"]
PODS = ["kubectl", "get", "pods", "--all-namespaces", "-o", "json"]
GPU = "nvidia.com/gpu"
UNITS = {"m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def amount(quantity: str) -> float:
    """A Kubernetes quantity: 8, 500m, 2808Gi."""
    for unit in sorted(UNITS, key=len, reverse=True):
        if quantity.endswith(unit):
            return float(quantity.removesuffix(unit)) * UNITS[unit]
    return float(quantity)


def used(pods: list[dict[str, Any]]) -> dict[str, Counter[str]]:
    """Requests of the pods that hold something, summed for each node."""
    totals: dict[str, Counter[str]] = {}
    for pod in pods:
        node = pod["spec"].get("nodeName")
        if node is None or pod["status"].get("phase") in ("Succeeded", "Failed"):
            continue
        total = totals.setdefault(node, Counter())
        for container in pod["spec"]["containers"]:
            for name, quantity in container.get("resources", {}).get("requests", {}).items():
                total[name] += amount(quantity)
    return totals


def table(nodes: list[dict[str, Any]], pods: list[dict[str, Any]]) -> list[str]:
    """One line per node, those with free GPUs first."""
    taken = used(pods)
    rows = []
    for node in nodes:
        name, conditions = node["metadata"]["name"], node["status"]["conditions"]
        has = {key: amount(node["status"]["allocatable"].get(key, "0")) for key in (GPU, "cpu", "memory")}
        gpus, cpus, memory = (value - taken.get(name, Counter())[key] for key, value in has.items())
        ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
        state = "cordoned" if node["spec"].get("unschedulable") else "ready" if ready else "not ready"
        figures = f"{gpus:3.0f} of {has[GPU]:2.0f}  {cpus:9.1f}  {memory / 2**30:9.1f}"
        rows.append((-gpus, name, f"{figures}  {state}"))
    width = max([4, *(len(name) for _, name, _ in rows)])
    header = f"{'node':{width}}  GPUs free  CPUs free   GiB free  state"
    return [header, *(f"{name:{width}}  {line}" for _, name, line in sorted(rows))]


def read(command: list[str]) -> list[dict[str, Any]]:
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)["items"]


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--dry-run", action="store_true")
    if parser.parse_args(argv).dry_run:
        print(shlex.join(NODES), shlex.join(PODS), sep="\n")
        return
    try:
        print("\n".join(table(read(NODES), read(PODS))))
    except FileNotFoundError:
        sys.exit("node_stat.py: kubectl is not on PATH")
    except subprocess.CalledProcessError as error:
        sys.exit(f"node_stat.py: {shlex.join(error.cmd)} ended with status {error.returncode}")


if __name__ == "__main__":
    main(sys.argv[1:])
