"""What the workspace says about itself: members, their metadata, their files. Used by the tests of the tree."""

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Project:
    """A folder with a pyproject.toml: the root or one member."""

    folder: Path

    @cached_property
    def metadata(self) -> dict[str, Any]:
        return tomllib.loads((self.folder / "pyproject.toml").read_text(encoding="utf-8"))

    @property
    def name(self) -> str:
        return self.metadata["project"]["name"]

    @property
    def import_name(self) -> str:
        return self.name.replace("-", "_")

    @property
    def source(self) -> Path:
        return self.folder / "src" / self.import_name

    @property
    def requirements(self) -> list[Requirement]:
        return [Requirement(line) for line in self.metadata["project"].get("dependencies", [])]

    def extra(self, names: Iterable[str]) -> list[Requirement]:
        extras = self.metadata["project"].get("optional-dependencies", {})
        return [Requirement(line) for name in names for line in extras[name]]

    @property
    def dependencies(self) -> set[str]:
        """Distributions that come with a plain install."""
        return distributions(self.requirements)

    @property
    def optional_dependencies(self) -> set[str]:
        """Distributions that only an extra brings."""
        extras = self.metadata["project"].get("optional-dependencies", {})
        return distributions(self.extra(extras)) - self.dependencies

    @property
    def dev_group(self) -> list[Requirement]:
        return [Requirement(line) for line in self.metadata.get("dependency-groups", {}).get("dev", [])]


def distributions(requirements: Iterable[Requirement]) -> set[str]:
    return {str(canonicalize_name(requirement.name)) for requirement in requirements}


def members(root: Path = ROOT) -> list[Project]:
    return [Project(path.parent) for path in sorted(root.glob("packages/*/pyproject.toml"))]


def app_folders(root: Path = ROOT) -> list[Path]:
    return [path.parent for path in sorted(root.glob("apps/*/__main__.py"))]
