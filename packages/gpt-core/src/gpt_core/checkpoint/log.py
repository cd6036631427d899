"""`checkpoint_log.yaml`: one entry per checkpoint saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from gpt_core.checkpoint import atomic

FILE = "checkpoint_log.yaml"
# libyaml's where PyYAML was built with it: ten times faster, and the file is rewritten at every save.
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def read_log(run_dir: Path) -> list[dict[str, Any]]:
    """Entries {step, path, checkpoint_filepath, val_loss, tokens}, oldest first; [] for a run without a log."""
    path = run_dir / FILE
    return (yaml.load(path.read_text(encoding="utf-8"), LOADER) or []) if path.exists() else []


def append_log(run_dir: Path, checkpoint: Path, entry: dict[str, Any]) -> None:
    """Add an entry for `checkpoint`; one for the same or a later step (before a resume) is replaced."""
    path = str(checkpoint.relative_to(run_dir))
    kept = [old for old in read_log(run_dir) if old["step"] < entry["step"]]
    kept.append({"path": path, "checkpoint_filepath": f"{path}/model.safetensors", **entry})
    with atomic.writing(run_dir / FILE) as new:
        new.write_text(yaml.dump(kept, Dumper=DUMPER, sort_keys=False), encoding="utf-8")
