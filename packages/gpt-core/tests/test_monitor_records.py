"""What a run writes about itself: no secrets, a command that can be repeated, a report with real numbers."""

import io
import json
import shlex
import subprocess

import pytest
import torch

from gpt_core.models import GPT, GPTConfig
from gpt_core.monitor import (
    MFUMeter,
    StartupInfo,
    compute_precision,
    hardware_record,
    optimizer_record,
    parameter_counts,
    redact,
    startup_report,
    write_run_records,
)
from gpt_core.monitor.environment import git_state, versions
from gpt_core.monitor.redact import REDACTED, is_secret_name, redact_argv, redact_yaml

SECRETS = [
    *(
        "WANDB_API_KEY",
        "HF_TOKEN",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_ACCESS_KEY_ID",
        "DB_PASSWORD",
        "PGPASSWORD",
        "hfToken",
    ),
    *(
        "api_key",
        "apiKey",
        "apikey",
        "client_secret",
        "passphrase",
        "SMTP_PASS",
        "authorization",
        "TOKEN2",
        "MYSQL_PWD",
    ),
]
HARMLESS = [
    *("tokens", "tokenizer", "flops_per_token_note", "eos_token", "pad_token", "monkey", "n_passes", "keyboard"),
    *("bypass_note", "compass", "tokenizer_path", "train/tokens_per_sec", "author", "authors", "passage"),
]


@pytest.mark.parametrize("name", SECRETS)
def test_secret_names(name):
    assert redact({"a": [{name: "s3cret-value"}]}) == {"a": [{name: REDACTED}]}


@pytest.mark.parametrize("name", HARMLESS)
def test_harmless_names(name):
    assert not is_secret_name(name)
    assert redact({name: "value"}) == {name: "value"}


def test_counts_are_not_secrets_but_numeric_passwords_are():
    values = {"flops_per_token": 8.5e8, "eot_token": 50256, "api_key": None, "password": 1234, "use_auth": True}
    assert redact(values) == {**values, "password": REDACTED}


def test_values_that_look_like_secrets():
    leaked = redact({"note": "with hf_abcdefghijklmnopqrst in it", "url": "https://me:pw@host/x"})
    assert "abcdefgh" not in leaked["note"] and "me:pw" not in leaked["url"]
    assert leaked["url"] == f"https://{REDACTED}@host/x"


def test_redact_leaves_its_argument_alone():
    original = {"x": {"token": "abc"}}
    redact(original)
    assert original == {"x": {"token": "abc"}}


def test_argv_forms():
    argv = [
        "pretrain",
        "--logging.api_key",
        "AAA",
        "--hf_token=BBB",
        "HF_TOKEN=CCC",
        "--training.max_steps",
        "5",
        "--key",
    ]
    assert redact_argv(argv) == [
        *("pretrain", "--logging.api_key", REDACTED, f"--hf_token={REDACTED}", f"HF_TOKEN={REDACTED}"),
        *("--training.max_steps", "5", "--key"),
    ]


def test_yaml_keeps_everything_but_the_secret():
    text = (
        "a:\n  # comment\n  lr: 1e-3\n  api_key: abc # mine\n  eos_token: <eos>\nlist:\n- token: xyz\n- password: 12\n"
    )
    expected = (
        text.replace("abc # mine", f"'{REDACTED}'").replace("xyz", f"'{REDACTED}'").replace("12", f"'{REDACTED}'")
    )
    assert redact_yaml(text) == expected


def test_run_records(tmp_path, monkeypatch):
    monkeypatch.setenv("SUPER_PRIVATE_VARIABLE", "never-written")
    argv = ["apps/pretrain", "it's a name", "--wandb_key", "hunter2", "--training.max_steps=5"]
    config = "general:\n  seed: 1\n  api_key: hunter2\n"
    write_run_records(tmp_path, config_yaml=config, argv=argv, data={"train": {"sha256": "ab12"}}, extra={"seed": 3})
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["data"] == {"train": {"sha256": "ab12"}}
    assert manifest["versions"]["torch"] == torch.__version__.partition("+")[0] or manifest["versions"]["torch"]
    assert manifest["hardware"]["cpu_count"] >= 1 and manifest["seed"] == 3
    assert set(manifest["git"]) == {"revision", "dirty"}
    command = (tmp_path / "command.sh").read_text().splitlines()[-1]
    assert shlex.split(command) == [*argv[:3], REDACTED, argv[4]]
    assert subprocess.run(["sh", "-n", str(tmp_path / "command.sh")]).returncode == 0
    written = "".join(path.read_text() for path in tmp_path.iterdir())
    assert "hunter2" not in written and "never-written" not in written


def test_resume_keeps_the_first_command_and_the_earlier_manifest(tmp_path):
    for steps in ("5", "10", "evil\nrm -rf x"):
        write_run_records(tmp_path, config_yaml=f"max_steps: {steps!r}\n", argv=["pretrain", steps])
    commands = (tmp_path / "command.sh").read_text().splitlines()
    assert [line for line in commands if not line.startswith("#")] == ["pretrain 5"]
    assert sum("resumed" in line for line in commands) == 2
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert [entry["argv"][1] for entry in manifest["earlier"]] == ["5", "10"]
    assert "earlier" not in manifest["earlier"][1]


def test_git_state_of_a_checkout(tmp_path):
    assert git_state(tmp_path)["dirty"] in (None, False, True)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e"]
    (tmp_path / "f").write_text("1")
    subprocess.run([*git, "add", "f"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "m"], check=True)
    clean = git_state(tmp_path)
    assert len(clean["revision"]) == 40 and clean["dirty"] is False
    (tmp_path / "f").write_text("2")
    assert git_state(tmp_path) == {**clean, "dirty": True}
    assert git_state(tmp_path / "absent") == {"revision": None, "dirty": None}


def test_versions_name_what_decides_the_numbers():
    assert {"python", "torch", "numpy", "gpt-core"} <= set(versions())


CONFIG = GPTConfig(vocab_size=65, context_length=64, n_layer=4, n_head=4, n_embd=128)


@pytest.fixture(scope="module")
def info():
    model = GPT(CONFIG)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    return StartupInfo(
        run_name="unit",
        model_config=CONFIG,
        parameters=parameter_counts(model),
        mfu=MFUMeter(CONFIG, tokens_per_step=2 * 12 * 3 * 64, device_name=None, precision="float32", world_size=2),
        hardware=hardware_record("cpu"),
        device_batch_size=12,
        accumulation_steps=3,
        max_steps=2000,
        world_size=2,
        strategy="ddp",
        optimizer=optimizer_record(optimizer),
        training={"learning_rate": 1e-3, "grad_clip": 1.0, "warmup": None},
        config={"logging": {"api_key": "hunter2"}},
    )


def test_report_holds_real_numbers_in_order(info):
    report = startup_report(info)
    titles = ["TRAINING INITIALIZATION: unit", "MODEL ARCHITECTURE", "TRAINING CONFIGURATION", "HARDWARE"]
    titles += ["THEORETICAL PERFORMANCE", "STARTING TRAINING"]
    places = [report.index(title) for title in titles]
    assert places == sorted(places)
    rows = dict(line.strip().split(":", 1) for line in report.splitlines() if line.startswith("  "))
    rows = {name: value.strip() for name, value in rows.items()}
    assert rows["Total parameters"] == "804,096 (804.1k)"
    assert rows["Without positions"] == "795,904 (795.9k)"  # less the 64 x 128 position table
    assert rows["Effective batch size"] == "72 sequences (12 x 3 x 2 ranks)"
    assert rows["Tokens per iteration"] == "4,608"
    assert rows["Parallelism"] == "DDP"
    assert rows["Learning rate"] == "0.001" and "Warmup" not in rows
    assert rows["Hardware peak"].startswith("n/a") and rows["Tokens/s at 50 % MFU"] == "n/a"
    assert rows["group"] == "804,096 (804.1k) in 27 tensors, rate 0.001, decay 0.01"
    assert report.splitlines()[0] == "=" * 80


def test_report_in_ascii(info):
    ascii_stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    assert startup_report(info, ascii_stream).isascii()


def test_start_record_is_json_without_secrets(info):
    record = json.loads(json.dumps(info.record(), allow_nan=False))
    assert record["config"]["logging"]["api_key"] == REDACTED
    assert record["model"]["total_params"] == 804_096
    assert record["optimizer"]["type"] == "AdamW" and record["optimizer"]["param_groups"][0]["params"] == 804_096
    assert record["metadata"]["world_size"] == 2 and record["hardware"]["parallelism"] == "ddp"


def test_tied_and_frozen_parameters_are_counted_once_and_apart():
    model = torch.nn.ModuleDict({"a": torch.nn.Linear(3, 3), "wpe": torch.nn.Embedding(5, 2)})
    model["b"] = model["a"]
    model["a"].bias.requires_grad_(False)
    counts = parameter_counts(model)
    assert (counts.total, counts.trainable, counts.non_embedding) == (22, 19, 12)


def test_compute_precision():
    assert compute_precision(torch.bfloat16) == "bf16"
    assert compute_precision("float32", "cpu") == "fp32"
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    try:
        for setting, name in (("tf32", "tf32"), ("ieee", "fp32")):
            matmul.fp32_precision = setting
            assert compute_precision(torch.float32, "cuda") == name
    finally:
        matmul.fp32_precision = before
