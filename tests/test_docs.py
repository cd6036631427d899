"""The written tour is true: what it names exists, and what exists is named."""

import re
from pathlib import Path

import pytest

from workspace import ROOT, app_folders, members

PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted(ROOT.glob("docs/**/*.md")),
    *sorted(ROOT.glob("packages/*/*.md")),
    *sorted(ROOT.glob("apps/*/*.md")),
    *sorted(ROOT.glob("scripts/*.md")),
]
INDEX = (ROOT / "docs/index.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_and_paths_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    paths = re.findall(r"`((?:apps|packages|docs|tests|benchmarks|scripts|\.ci|\.github)/[\w./-]*)`", text)
    missing += [path for path in paths if not any((start / path).exists() for start in (ROOT, page.parent))]
    assert not missing


def tour_of_packages() -> set[Path]:
    """Paths of the tree drawings in the index: a line `packages/...` and the indented lines below it."""
    found = set()
    for block in re.findall(r"```\n(packages/\S+/src/.*?)```", INDEX, re.DOTALL):
        head, *lines = block.splitlines()
        parents = {0: ROOT / head}
        for line in lines:
            entry, _, _ = line.strip().partition("   ")
            depth = (len(line) - len(line.lstrip())) // 2
            for name in entry.split("  "):
                parents[depth] = parents[depth - 1] / name
                found.add(parents[depth])
    return found


def test_the_tour_draws_only_what_exists():
    drawn = tour_of_packages()
    assert len(drawn) > 20
    assert not [str(path) for path in drawn if not path.exists()]


def test_the_tour_draws_every_subpackage():
    pages = {path for project in members() for path in project.source.glob("*/**/__init__.py")}
    subpackages = {path.parent for path in pages}
    assert not sorted(str(path) for path in subpackages - tour_of_packages())


def test_the_index_names_every_app_page_and_benchmark():
    wanted = [folder.name for folder in app_folders()]
    wanted += [path.name for path in ROOT.glob("docs/*.md") if path.name != "index.md"]
    wanted += [path.name for path in ROOT.glob("benchmarks/bench_*.py")]
    assert not [name for name in wanted if name not in INDEX]


def test_the_index_names_no_benchmark_that_is_gone():
    named = re.findall(r"`(bench_\w+\.py)`", INDEX)
    assert not [name for name in named if not (ROOT / "benchmarks" / name).exists()]
