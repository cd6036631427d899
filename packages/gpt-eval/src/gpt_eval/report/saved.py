"""All files of one evaluation for people: report.md, bars.png, radar.png."""

from collections.abc import Callable
from pathlib import Path

from gpt_eval.report.markdown import write_report
from gpt_eval.report.plots import plot_bars, plot_radar
from gpt_eval.results import Results


def write_results(
    results: Results, folder: str | Path, *, pictures: bool = True, notify: Callable[[str], None] = print
) -> list[Path]:
    """Writes them into `folder` and returns their paths. notify: told why, where there are no pictures."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    drawn = _draw(results, folder, notify) if pictures else []
    return [write_report(results, folder, drawn), *drawn]


def _draw(results: Results, folder: Path, notify: Callable[[str], None]) -> list[Path]:
    try:
        radar = plot_radar([results], folder / "radar.png")
        return [plot_bars([results], folder / "bars.png"), *([radar] if radar else [])]
    except (ImportError, ValueError) as error:
        notify(f"no pictures: {error}")
        return []
