"""docs/scaling.md shows what the committed study says, and the study's fit is that of its rows."""

import json

import pytest

from app_modules import app_modules
from workspace import ROOT

APP = ROOT / "apps" / "scaling"
STUDY = APP / "study"


@pytest.fixture(scope="module")
def fit():
    with app_modules("scaling") as import_:
        yield import_("fit")


def test_the_committed_fit_is_that_of_the_committed_rows(fit):
    rows, warnings = fit.gather(STUDY / "results.csv")
    record = json.loads((STUDY / "fit.json").read_text())
    assert not warnings and record["runs"] == len(rows)
    laws, _ = fit.fit_laws(rows, draws=record["bootstrap"]["draws"], seed=record["bootstrap"]["seed"])
    for law, kept in zip(laws, record["laws"], strict=True):
        assert kept["convention"] == law.convention
        assert kept["params"]["exponent"] == pytest.approx(law.params.exponent, rel=1e-9)
        assert kept["over_points"]["a"] == pytest.approx(law.over_points.a, rel=1e-6)
        assert sum(best["flag"] is None for best in kept["optima"]) >= 2, "a real minimum for two budgets"


def test_the_page_shows_them():
    page = (ROOT / "docs" / "scaling.md").read_text()
    tables = [line for line in (STUDY / "fit.md").read_text().splitlines() if line.startswith("| ")]
    assert len(tables) > 8 and not [line for line in tables if line not in page], "paste study/fit.md into the page"
