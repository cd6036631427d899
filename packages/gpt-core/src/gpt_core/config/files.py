"""YAML files: reading with line numbers, finding a shipped configuration, `__include__`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from gpt_core.config import tree as trees
from gpt_core.config.errors import ConfigError, nearest
from gpt_core.config.paths import expand
from gpt_core.config.tree import Tree

INCLUDE = "__include__"
RUN_CONFIG = "config.yaml"
YAML = (".yaml", ".yml")
Lines: TypeAlias = "dict[tuple[str, ...], int]"


class Files:
    """Reads configuration files; `config_dirs` are the folders of the shipped ones."""

    def __init__(self, config_dirs: Sequence[str | Path], environ: Mapping[str, str]):
        self.config_dirs = [Path(folder) for folder in config_dirs]
        self.environ = environ

    def find(self, name: str) -> Path:
        """The file a positional argument means: a path, a run folder, or the name of a shipped configuration."""
        given = Path(expand(name, self.environ))
        is_file_name = given.suffix in (*YAML, ".py")
        if is_file_name and given.is_file():
            return given
        if (given / RUN_CONFIG).is_file():  # the folder of a run: repeat it
            return given / RUN_CONFIG
        for folder in self.config_dirs:
            found = folder / given if is_file_name else folder / f"{given}.yaml"
            if found.is_file():
                return found
        if "=" in name:
            raise ConfigError(f"{name!r} is not a configuration; an override is written --{name}")
        if is_file_name:
            raise ConfigError(f"no configuration file {given.absolute()}")
        shipped = self.shipped()
        raise ConfigError(
            f"no configuration named {name!r}{nearest(name, shipped)} "
            f"(shipped: {', '.join(shipped) or 'none'}; or give the path of a .yaml or .py file)"
        )

    def shipped(self) -> dict[str, Path]:
        """Name -> file of every shipped configuration."""
        found = {}
        for folder in self.config_dirs:
            for file in sorted(folder.rglob("*.yaml")):
                found.setdefault(file.relative_to(folder).with_suffix("").as_posix(), file)
        return found

    def read(self, file: Path, chain: tuple[Path, ...] = ()) -> Tree:
        """The tree of a YAML file with its includes merged below its own keys."""
        here = file.resolve()
        if here in chain:
            names = " -> ".join(self.name(link) for link in (*chain[chain.index(here) :], here))
            raise ConfigError(f"the files include each other: {names}")
        data, lines = read_yaml(file, self.name(file))
        includes = data.pop(INCLUDE, None) or []
        if isinstance(includes, str):
            includes = [includes]
        if not isinstance(includes, list) or not all(isinstance(item, str) for item in includes):
            raise ConfigError(f"{self.name(file)}: {INCLUDE} is a path or a list of paths, got {includes!r}")
        own = trees.tree_of(data, lambda path: f"{self.name(file)}{_line(lines, path)}")
        merged: Tree = {}
        for include in includes:
            merged = trees.merge(merged, self.read(self._included(include, file), (*chain, here)))
        return trees.merge(merged, own)

    def _included(self, include: str, file: Path) -> Path:
        target = Path(expand(include, self.environ))
        for folder in (file.parent, *self.config_dirs):  # a configuration of one's own may build on a shipped one
            if (folder / target).is_file():
                return folder / target
        missing = (file.parent / target).absolute()
        raise ConfigError(f"{self.name(file)}: the included file {missing} does not exist")

    def name(self, file: Path) -> str:
        """A short name for messages: relative to the configuration folder or the working directory."""
        file = file.resolve()
        for folder in (*self.config_dirs, Path.cwd()):
            if file.is_relative_to(folder.resolve()):
                return file.relative_to(folder.resolve()).as_posix()
        return str(file)


def read_yaml(file: Path, name: str) -> tuple[dict[Any, Any], Lines]:
    """The mapping in a YAML file and the lines of its keys.

    Read as OmegaConf reads YAML: `1e-3` is a float and a duplicate key an error.
    """
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        text = file.read_text(encoding="utf-8")
        root = yaml.compose(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        if root is None or root.tag == "tag:yaml.org,2002:null":
            return {}, {}
        if not isinstance(root, yaml.MappingNode):
            raise ConfigError(f"{name}: a configuration is a mapping of keys to values, got a {root.id}")
        lines = dict(_key_lines(root, ()))
        data = OmegaConf.to_container(OmegaConf.create(text), resolve=False)
    except ConfigError:
        raise
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigError(f"{name}{line}: not valid YAML: {error.problem or error.context}") from error
    except (yaml.YAMLError, OmegaConfBaseException, ValueError) as error:
        raise ConfigError(f"{name}: not valid YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise ConfigError(f"{name}: an anchor contains itself") from error
    assert isinstance(data, dict)
    return data, lines


def _key_lines(node: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], int]]:
    """Path of every key and its 1-based line; keys that come from a `<<:` merge are missing."""
    pairs = node.value if node.id == "mapping" else ()
    for key, value in pairs:
        place = (*path, str(key.value).removeprefix(trees.CREATE))
        yield place, key.start_mark.line + 1
        yield from _key_lines(value, place)


def _line(lines: Lines, path: trees.Path) -> str:
    place = tuple(str(part) for part in path)
    while place and place not in lines:
        place = place[:-1]
    return f":{lines[place]}" if place else ""


def first_comment(file: Path) -> str:
    """The text of the first comment line of a file, its summary in `--help`."""
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            return line.lstrip("# ").strip()
        if line.strip():
            break
    return ""
