"""Finds imports that the design forbids, by reading the source; nothing is imported or run."""

import ast
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

from packaging.utils import canonicalize_name

from workspace import Project, app_folders, distributions, members

STANDARD_LIBRARY = frozenset(sys.stdlib_module_names)


@dataclass(frozen=True)
class Import:
    """One absolute import of a top-level module, wherever it stands in a file."""

    path: Path
    line: int
    module: str
    at_import_time: bool
    """True if importing the file runs it: outside functions and `if TYPE_CHECKING`."""

    def __str__(self) -> str:
        return f"{self.path}:{self.line} imports {self.module}"


def imports_of(path: Path) -> list[Import]:
    """Every import statement and every `import_module("literal")` of a file, at any depth."""
    return _imports_in(path, path.read_text(encoding="utf-8"))


@cache  # several tests read the whole tree
def _imports_in(path: Path, source: str) -> list[Import]:
    found: list[Import] = []
    in_expressions = "import_module" in source or "__import__" in source  # else they are most of the nodes, for nothing

    def walk(node: ast.AST, at_import_time: bool) -> None:
        found.extend(Import(path, node.lineno, name.split(".")[0], at_import_time) for name in _imported_names(node))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or _is_type_checking(node):
            at_import_time = False
        for child in ast.iter_child_nodes(node):
            if in_expressions or not isinstance(child, ast.expr):
                walk(child, at_import_time)

    walk(ast.parse(source), True)
    return found


def _imported_names(node: ast.AST) -> list[str]:
    match node:
        case ast.Import(names=names):
            return [alias.name for alias in names]
        case ast.ImportFrom(module=str(module), level=0):
            return [module]
        case ast.Call(
            func=ast.Attribute(attr="import_module") | ast.Name(id="import_module" | "__import__"),
            args=[ast.Constant(value=str(module)), *_],
        ) if not module.startswith("."):
            return [module]
        case _:
            return []


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


_installed_modules = cache(packages_distributions)  # reads the metadata of the whole environment


def distributions_of(module: str) -> set[str]:
    """The distributions that provide a module; its own name if none is installed (an optional one)."""
    installed = _installed_modules().get(module, [module])
    return {str(canonicalize_name(name)) for name in installed}


def forbidden_package_imports(
    root: Path,
    allowed: Mapping[str, set[str]],
    user_installed: frozenset[str] = frozenset(),
    behind_extras: Collection[str] = (),
) -> list[str]:
    """Imports of members, apps and third parties that a package may not make or does not declare.

    allowed: for each member the members that it may import.
    user_installed: modules that no extra can bring; they count as if one did.
    behind_extras: folders, from the root, whose modules are imported only where an extra is there.
    """
    projects = {project.name: project for project in members(root)}
    by_module = {project.import_name: name for name, project in projects.items()}
    apps = {folder.name for folder in app_folders(root)} | {"apps"}
    found = [f"{name} is not in the table of allowed imports" for name in projects.keys() - allowed.keys()]
    for name, project in projects.items():
        for target in (project.dependencies | project.optional_dependencies) & projects.keys():
            if target not in allowed.get(name, set()) | {name}:
                found.append(f"{project.folder / 'pyproject.toml'} declares {target}: not allowed")
        for statement in _imports_under(project.source):
            module = statement.module
            if module in STANDARD_LIBRARY or module == project.import_name:
                continue
            if module in by_module and by_module[module] not in allowed.get(name, set()):
                found.append(f"{statement}: {name} may not import {by_module[module]}")
            elif module in apps and module not in by_module:
                found.append(f"{statement}: a package may not import an app")
            else:
                behind = any(root / folder in statement.path.parents for folder in behind_extras)
                found += _undeclared(statement, project, user_installed, behind)
    return found


def _undeclared(statement: Import, project: Project, user_installed: frozenset[str], behind: bool) -> list[str]:
    providers = distributions_of(statement.module)
    if providers & project.dependencies:
        return []
    if not providers & project.optional_dependencies and statement.module not in user_installed:
        return [f"{statement}: {project.name} does not declare it"]
    if statement.at_import_time and not behind:
        return [f"{statement}: only an extra brings it, so import it in the function that needs it"]
    return []


def unused_dependencies(root: Path) -> set[tuple[str, str]]:
    """Pairs (member, distribution) that a plain install brings and no file of the member imports."""
    pairs = set()
    for project in members(root):
        used = {name for found in _imports_under(project.source) for name in distributions_of(found.module)}
        pairs |= {(project.name, name) for name in project.dependencies - used}
    return pairs


def forbidden_app_imports(root: Path) -> list[str]:
    """Imports of one app by another, of undeclared libraries, and app files that hide a library."""
    available = _root_distributions(root)
    folders = app_folders(root)
    names = {folder.name for folder in folders} | {"apps"}
    found = []
    for folder in folders:
        siblings = {path.stem for path in folder.glob("*.py")} | {path.name for path in folder.glob("*/")}
        for stem in siblings & (STANDARD_LIBRARY | _installed_modules().keys()):
            found.append(f"{folder / stem} hides the library of the same name")
        for statement in _imports_under(folder):
            module = statement.module
            if module in STANDARD_LIBRARY | siblings:
                continue
            if module in names:
                found.append(f"{statement}: an app may not import an app")
            elif not distributions_of(module) & available:
                found.append(f"{statement}: the root environment does not declare it")
    return found


def _root_distributions(root: Path) -> set[str]:
    """What `uv run apps/NAME` finds: the root's dependencies and, for members, theirs with the extras asked for."""
    projects = {project.name: project for project in members(root)}
    available = set()
    for requirement in Project(root).requirements:
        available.add(str(canonicalize_name(requirement.name)))
        if project := projects.get(requirement.name):
            available |= project.dependencies | distributions(project.extra(requirement.extras))
    return available


def work_at_import(root: Path) -> list[str]:
    """Bare calls and assignments into imported modules at the top level of package files."""
    found = []
    for path in _sources(root):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        imports = [node for node in body if isinstance(node, ast.Import | ast.ImportFrom)]
        imported = {alias.asname or alias.name.split(".")[0] for node in imports for alias in node.names}
        for node in body:
            targets = node.targets if isinstance(node, ast.Assign) else []
            is_call = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and not _declares(node.value)
            if is_call or any(_owner(target) in imported for target in targets):
                found.append(f"{path}:{node.lineno} works at import: {ast.unparse(node)[:60]}")
    return found


def _declares(call: ast.Call) -> bool:
    """`op.register_autograd(...)` is part of the definition of a torch operator; there is no decorator for it."""
    return isinstance(call.func, ast.Attribute) and call.func.attr == "register_autograd"


def _owner(target: ast.expr) -> str | None:
    """The name `a` of a target such as a.b or a.b["c"]; None for a plain name."""
    owner = None
    while isinstance(target, ast.Attribute | ast.Subscript):
        target = target.value
        owner = target.id if isinstance(target, ast.Name) else None
    return owner


def long_files(root: Path, *, limit: int, app_limit: int) -> set[str]:
    """Files of packages over `limit` lines and `__main__.py` of apps over `app_limit`, relative to the root."""
    limits = {path: limit for path in _sources(root)}
    limits |= {folder / "__main__.py": app_limit for folder in app_folders(root)}
    return {
        path.relative_to(root).as_posix()
        for path, most in limits.items()
        if len(path.read_text(encoding="utf-8").splitlines()) > most
    }


def _sources(root: Path) -> list[Path]:
    return [path for project in members(root) for path in sorted(project.source.rglob("*.py"))]


def _imports_under(folder: Path) -> Iterator[Import]:
    for path in sorted(folder.rglob("*.py")):
        yield from imports_of(path)
