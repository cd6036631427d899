"""Volcano without a cluster: the YAML of the dry runs, and whole commands under a stand-in for kubectl."""

import json
import os
import re
import sys

import pytest
import yaml

from scripting import NASTY, SCRIPTS, after, call, printed, program

VOLCANO = {
    "VOLCANO_NAMESPACE": "team",
    "VOLCANO_DATA_PVC_NAME": "disk",
    "VOLCANO_IMAGE": "image:1",
    "PROJECT_NAME": "gpt",
}


@pytest.fixture
def vsubmit(tmp_path):
    """`vsubmit.sh --dry-run`: options and app arguments to the job that kubectl would get."""

    def run(*options, app=(), **env):
        process = call(
            "volcano/vsubmit.sh", "--dry-run", "--job-name", "x", *options, "--", "apps/pretrain", *app,
            cwd=tmp_path, **VOLCANO, **env,
        )  # fmt: skip
        assert process.returncode == 0, process.stderr
        return yaml.safe_load(process.stdout)

    return run


def test_the_job_has_one_pod_per_node(vsubmit, tmp_path):
    job = vsubmit("--nodes", 3, "--gpus", 4, "--rdma", 2)
    assert (job["apiVersion"], job["kind"]) == ("batch.volcano.sh/v1alpha1", "Job")
    assert job["metadata"] == {"name": "x", "namespace": "team"}
    spec = job["spec"]
    assert [(task["name"], task["replicas"]) for task in spec["tasks"]] == [("master", 1), ("worker", 2)]
    assert spec["minAvailable"] == 3, "all pods start together or none"
    assert spec["plugins"]["pytorch"] == ["--master=master", "--worker=worker", "--port=23456"]
    assert {"ssh", "svc", "env"} < spec["plugins"].keys()
    pods = [task["template"]["spec"] for task in spec["tasks"]]
    assert pods[0] == pods[1]
    (container,) = pods[0]["containers"]
    wanted = {"cpu": "104", "memory": "2808Gi", "nvidia.com/gpu": "4", "rdma/hca": "2"}
    assert container["resources"] == {"requests": wanted, "limits": wanted}
    assert container["command"][container["command"].index("--processes") + 1] == "4"
    assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/data", "/dev/shm"}
    volumes = {volume["name"]: volume for volume in pods[0]["volumes"]}
    assert volumes["data"]["persistentVolumeClaim"] == {"claimName": "disk"}
    assert volumes["dshm"]["emptyDir"] == {"medium": "Memory"}
    (apart,) = pods[0]["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    labels = spec["tasks"][1]["template"]["metadata"]["labels"]
    assert apart == {"labelSelector": {"matchLabels": labels}, "topologyKey": "kubernetes.io/hostname"}
    assert [task["name"] for task in vsubmit()["spec"]["tasks"]] == ["master"]
    assert list(tmp_path.iterdir()) == [], "a dry run writes nothing"


def container_of(job):
    return job["spec"]["tasks"][0]["template"]["spec"]["containers"][0]


def test_arguments_and_variables_survive_yaml_and_kubernetes(vsubmit):
    options = ["--env", "NOTE=a: 'b' # $(c)", "--env", "KEY", "--secret", "wandb"]
    container = container_of(vsubmit(*options, app=NASTY, KEY="from here"))
    words = [word.replace("$$", "$") for word in container["command"]]  # what Kubernetes does
    assert after(words[words.index("--python") :])[1:] == NASTY
    assert not [word for word in container["command"] if re.search(r"(?<!\$)(\$\$)*\$\(", word)]
    variables = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert variables["NOTE"] == "a: 'b' # $$(c)" and variables["KEY"] == "from here"
    assert variables["PYTORCH_ALLOC_CONF"] == "expandable_segments:True"
    assert container["envFrom"] == [{"secretRef": {"name": "wandb"}}]
    assert container["workingDir"] == "/data/gpt"


def test_a_restartable_volcano_job(vsubmit):
    def policies(job):
        return {policy["event"]: policy["action"] for policy in job["spec"]["policies"]}

    job = vsubmit("--restartable", "--max-retry", 5)
    assert policies(job) == {"PodFailed": "RestartJob", "PodEvicted": "RestartJob"}
    assert job["spec"]["maxRetry"] == 5
    command = container_of(job)["command"]
    assert command[-2:] == ["--general.run_name=x", "--general.out_dir=/data/gpt/out"]
    assert command[command.index("--run-dir") + 1] == "/data/gpt/out/x"
    assert policies(vsubmit()) == {"PodFailed": "TerminateJob", "PodEvicted": "TerminateJob"}
    assert container_of(vsubmit())["command"][-1] == "apps/pretrain"


def test_a_pod_becomes_one_torchrun(tmp_path):
    """The plugin's WORLD_SIZE and RANK count pods; as they are, they would make eight processes of a node rank 1."""
    plugin = {"WORLD_SIZE": "3", "RANK": "1", "MASTER_ADDR": "x-master-0.x", "MASTER_PORT": "23456"}
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    options = ["--job-dir", tmp_path / "job", "--run-dir", tmp_path / "run", "--processes", 8]

    def torchrun(**env):
        done = call(
            "volcano/pod.sh", "--dry-run", *options, "--", "apps/pretrain", *NASTY, cwd=tmp_path, **plugin | env
        )
        return printed(done)["exec"]

    words = torchrun()
    assert {"--nnodes=3", "--node-rank=1", "--nproc-per-node=8", "--master-addr=x-master-0.x"} <= set(words)
    assert f"--log-dir={tmp_path}/job/logs/restart_000/node_1" in words
    assert words[-5:] == [f"{tmp_path}/job/source_dir/apps/pretrain", *NASTY]
    (tmp_path / "run/checkpoints/step_000010").mkdir()
    (tmp_path / "run/checkpoints/step_000010/meta.json").touch()
    again = torchrun(JOB_RESTART_COUNT="2")
    assert again[-1] == "--general.init_from=resume"
    assert f"--log-dir={tmp_path}/job/logs/restart_002/node_1" in again


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("vsubmit.sh", ["--job-name", "My_Job", "--", "apps/pretrain"], "--job-name 'My_Job': expected at most 50"),
        ("vsubmit.sh", ["--job-name", "x", "--pvc", "", "--", "apps/pretrain"], "set it or VOLCANO_DATA_PVC_NAME"),
        (
            "vsubmit.sh",
            ["--job-name", "x", "--project", "a/..", "--", "apps/pretrain"],
            "--project 'a/..' names a folder",
        ),
        ("vsubmit.sh", ["--job-name", "x", "--env", "NOT_SET", "--", "apps/pretrain"], "use --env NOT_SET=VALUE"),
        ("vsubmit.sh", ["--job-name", "x", "--env", "a b=1", "--", "apps/pretrain"], "--env 'a b=1': expected NAME"),
        ("copy2pvc.sh", ["here"], "expected SOURCE and TARGET, got 1"),
        ("copy2pvc.sh", ["gone", "there"], "there is no 'gone'"),
        ("copy2pvc.sh", [".", "../there"], "TARGET '../there': expected a path inside the volume"),
        ("devbox.sh", ["start"], "'start': expected one of up, shell, down"),
        ("devbox.sh", ["up", "--name", "Me"], "--name 'Me': expected lower-case"),
    ],
)
def test_volcano_mistakes_get_one_line(tmp_path, script, arguments, message):
    done = call(f"volcano/{script}", *arguments, cwd=tmp_path, USER="me", **VOLCANO)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert message in done.stderr


def test_a_devbox_is_a_pod_with_the_volume(tmp_path):
    done = call("volcano/devbox.sh", "up", "--gpus", 1, "--dry-run", cwd=tmp_path, USER="me", **VOLCANO)
    pod = yaml.safe_load(done.stdout)
    assert (pod["kind"], pod["metadata"]) == ("Pod", {"name": "devbox-me", "namespace": "team"})
    (container,) = pod["spec"]["containers"]
    assert container["resources"]["limits"] == {"cpu": "8", "memory": "64Gi", "nvidia.com/gpu": "1"}
    shell = call("volcano/devbox.sh", "shell", "--dry-run", cwd=tmp_path, USER="me", **VOLCANO).stdout
    assert shell == "# kubectl --namespace team exec -it devbox-me -- bash\n"


KUBECTL = """
import json, os, subprocess, sys
words = sys.argv[1:]
with open("kubectl.jsonl", "a") as log:
    log.write(json.dumps(words) + "\\n")
if "create" in words:
    open("created.yaml", "w").write(sys.stdin.read())
elif "exec" in words:  # the volume is the folder `volume`
    command = [word.replace("/data", "volume") for word in words[words.index("--") + 1 :]]
    sys.exit(subprocess.run(command).returncode)
elif "logs" in words:
    print("the log of", words[-1])
elif "jobs.batch.volcano.sh" in words:
    print(os.environ["PHASE"], end="")
elif "pods" in words and "--all-namespaces" in words:
    print(open("pods.json").read())
elif "nodes" in words:
    print(open("nodes.json").read())
elif "pods" in words:
    print("pod/x-worker-0")
elif "events" in words:
    print("OOMKilled")
"""


@pytest.fixture
def kubectl(tmp_path):
    """A stand-in for kubectl on the PATH that is returned; what it was asked is in kubectl.jsonl."""
    (tmp_path / "bin").mkdir()
    program(tmp_path / "bin/kubectl", KUBECTL)
    program(tmp_path / "bin/sleep", "")
    return f"{tmp_path / 'bin'}:{os.environ['PATH']}"


def asked(folder):
    return [json.loads(line) for line in (folder / "kubectl.jsonl").read_text().splitlines()]


def test_copies_arrive_and_the_helper_pod_goes(kubectl, tmp_path):
    source = tmp_path / "some data"
    (source / "sub").mkdir(parents=True)
    (source / "sub/it's.bin").write_bytes(b"\0\1")
    done = call("volcano/copy2pvc.sh", source, "sets/my data", cwd=tmp_path, PATH=kubectl, **VOLCANO)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "volume/sets/my data/sub/it's.bin").read_bytes() == b"\0\1"
    call("volcano/copy2pvc.sh", source / "sub/it's.bin", "one", cwd=tmp_path, PATH=kubectl, **VOLCANO)
    assert (tmp_path / "volume/one/it's.bin").exists()
    pod = yaml.safe_load((tmp_path / "created.yaml").read_text())
    assert asked(tmp_path)[-1][2:] == ["delete", "--wait=false", "--grace-period=1", f"pod/{pod['metadata']['name']}"]


@pytest.mark.parametrize("phase", ["Completed", "Failed"])
def test_a_job_is_followed_to_its_end(kubectl, tmp_path, phase):
    options = ["--job-name", "x", "--dirty", "--", "apps/pretrain"]
    done = call("volcano/vsubmit.sh", *options, cwd=tmp_path, PATH=kubectl, PHASE=phase, **VOLCANO)
    assert done.returncode == (0 if phase == "Completed" else 1), done.stderr
    assert "the log of x-master-0" in done.stdout and f"job x: {phase}" in done.stdout
    assert ("the log of pod/x-worker-0\nOOMKilled" in done.stdout) == (phase == "Failed")
    command = container_of(yaml.safe_load((tmp_path / "created.yaml").read_text()))["command"]
    copied = tmp_path / "volume" / command[1].removeprefix("/data/")
    assert copied.read_text() == (SCRIPTS / "volcano/pod.sh").read_text()
    assert (copied.parents[2] / "source_dir/apps/pretrain/__main__.py").exists()


def test_node_stat_subtracts_what_pods_hold(kubectl, tmp_path):
    def node(name, gpus, **spec):
        status = {"conditions": [{"type": "Ready", "status": "True"}]}
        status["allocatable"] = {"cpu": "8", "memory": "16Gi", **({"nvidia.com/gpu": gpus} if gpus else {})}
        return {"metadata": {"name": name}, "spec": spec, "status": status}

    def pod(node, phase, **requests):
        containers = [{"resources": {"requests": requests}}, {}]
        return {"spec": {"nodeName": node, "containers": containers}, "status": {"phase": phase}}

    gpu = {"nvidia.com/gpu": "3"}
    pods = [
        pod("b", "Running", cpu="500m", memory="1024Mi", **gpu),
        pod("b", "Succeeded", **gpu),
        {"spec": {"containers": []}, "status": {"phase": "Pending"}},
    ]
    (tmp_path / "nodes.json").write_text(json.dumps({"items": [node("a", ""), node("b", "8", unschedulable=True)]}))
    (tmp_path / "pods.json").write_text(json.dumps({"items": pods}))
    done = call("volcano/node_stat.py", cwd=tmp_path, PATH=f"{kubectl}:{os.path.dirname(sys.executable)}")
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()[1:]]
    assert lines == [
        ["b", "5", "of", "8", "7.5", "15.0", "cordoned"],
        ["a", "0", "of", "0", "8.0", "16.0", "ready"],
    ]
    dry = call("volcano/node_stat.py", "--dry-run", cwd=tmp_path)
    assert dry.stdout.splitlines()[0] == "kubectl get nodes -o json"
