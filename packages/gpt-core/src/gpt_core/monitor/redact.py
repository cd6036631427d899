"""Secrets are never written: values whose names say key, token, secret or password, and values that look like one.

Redaction is by whole words of the name, so `WANDB_API_KEY`, `hfToken` and `db.password` are secrets while `tokens`,
`tokenizer`, `flops_per_token: 8e8` and `eos_token: <eos>` are not.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

REDACTED = "[redacted]"

# A name that holds one of these words is secret whatever the value is; these only as its last word, and if the value
# is text, because numbers are counts.
_ALWAYS = re.compile(r"(secrets?|password|passwd|passphrase|pass|pwd|credentials?|authorization|bearer|cookie|auth)$")
_LAST = re.compile(r"(apikey|key|token)$")
_VOCABULARY = re.compile(r"(bos|eos|eot|pad|unk|sep|cls|mask|special|start|end|stop|image|user|assistant|system)$")
_WORDS = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+")
_LOOKS_SECRET = re.compile(
    r"\b(?:hf_|sk-|ghp_|gho_|ghs_|github_pat_|glpat-|xox[abprs]-|AKIA|AIza)[A-Za-z0-9_\-]{12,}"
    r"|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"
)
_ASSIGNMENT = re.compile(r"^(?P<name>-*[A-Za-z_][\w.\-]*)(?P<equals>=)(?P<value>.*)$", re.DOTALL)
_YAML_ENTRY = re.compile(r"^(?P<head>\s*(?:-\s+)*['\"]?(?P<name>[A-Za-z_][\w.\-]*)['\"]?\s*:\s+)(?P<value>\S.*)$")


def is_secret_name(name: str) -> bool:
    """Whether a setting of this name may hold a secret (if its value is text)."""
    words = [word.lower() for word in _WORDS.findall(name)]
    if not words:
        return False
    if any(_ALWAYS.fullmatch(word) for word in words) or re.search(r"(password|passwd|secret)$", words[-1]):
        return True
    if words[-2:] == ["key", "id"]:
        return True
    if not _LAST.search(words[-1]) or words[-1] in ("monkey", "turkey", "donkey", "hotkey"):
        return False
    return not (len(words) > 1 and _VOCABULARY.fullmatch(words[-2]))


def redact(value: Any, name: str = "") -> Any:
    """A copy of `value` (mappings, lists, scalars) with secrets replaced by `[redacted]`."""
    if isinstance(value, Mapping):
        return {key: redact(item, str(key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redact(item, name) for item in value]
    if isinstance(value, str):
        return REDACTED if value and is_secret_name(name) else redact_text(value)
    if isinstance(value, int | float) and not isinstance(value, bool) and _is_always_secret(name):
        return REDACTED
    return value


def redact_text(text: str) -> str:
    """Free text with well-known token formats and the credentials of URLs removed."""
    return _LOOKS_SECRET.sub(REDACTED, text)


def redact_argv(argv: Sequence[str]) -> list[str]:
    """A command line without secrets, for `--api_key X`, `--api_key=X` and `API_KEY=X` alike."""
    redacted: list[str] = []
    secret_follows = False
    for argument in argv:
        assignment = _ASSIGNMENT.match(argument)
        if secret_follows and not argument.startswith("--"):
            redacted.append(REDACTED)
        elif assignment and is_secret_name(assignment["name"].rpartition(".")[2]):
            redacted.append(f"{assignment['name']}={REDACTED}")
        else:
            redacted.append(redact_text(argument))
        secret_follows = argument.startswith("-") and not assignment and is_secret_name(argument.rpartition(".")[2])
    return redacted


def redact_yaml(text: str) -> str:
    """YAML text in block style without secrets; comments and formatting stay."""
    return "\n".join(_redact_yaml_line(line) for line in text.split("\n"))


def _redact_yaml_line(line: str) -> str:
    entry = _YAML_ENTRY.match(line)
    if entry is None or entry["value"] in ("null", "~", "''", '""') or entry["value"].startswith(("#", "&", "|", ">")):
        return redact_text(line)
    is_number = re.fullmatch(r"[-+]?[\d.][\d._eE+-]*|true|false", entry["value"]) is not None
    secret = _is_always_secret(entry["name"]) if is_number else is_secret_name(entry["name"])
    return f"{entry['head']}'{REDACTED}'" if secret else redact_text(line)


def _is_always_secret(name: str) -> bool:
    return any(_ALWAYS.fullmatch(word.lower()) for word in _WORDS.findall(name))
