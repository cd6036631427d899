"""A fit as JSON, for programs, and as Markdown, for people: what was found beside what others found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from isoflop import Optimum
from measurement import Measurement
from power_law import LEVEL, ScalingLaw, Spread
from reference_laws import REFERENCES

from gpt_core.monitor.strict_json import dumps, write_atomic
from gpt_core.monitor.text import count


def write(laws: Sequence[ScalingLaw], rows: Sequence[Measurement], out: Path, draws: int, seed: int) -> str:
    """`fit.json` and `fit.md` in `out`; returns the Markdown and where it is."""
    text = markdown(laws, rows)
    write_atomic(out / "fit.md", text)
    write_atomic(out / "fit.json", dumps(record(laws, rows, draws, seed), indent=1) + "\n")
    return f"{text}\nwrote {out}/fit.md and fit.json"


def record(laws: Sequence[ScalingLaw], rows: Sequence[Measurement], draws: int, seed: int) -> dict[str, Any]:
    """Everything that was fitted, in plain types."""
    return {
        "runs": len(rows),
        "bootstrap": {"draws": draws, "seed": seed, "level": LEVEL},
        "laws": [
            {
                "convention": law.convention,
                "optima": [asdict(each) | {"ratio": each.ratio} for each in law.optima],
                "params": law.params and asdict(law.params),
                "tokens": law.tokens and asdict(law.tokens),
                "a_plus_b": law.params and law.tokens and law.params.exponent + law.tokens.exponent,
                "middle_budget": law.middle,
                "ratio_at_middle": law.ratio_at_middle,
                "ratio_mean": law.ratio_mean,
                "ratio_sd": law.ratio_sd,
                "over_points": law.over_points and asdict(law.over_points),
                "over_budgets": law.over_budgets and asdict(law.over_budgets),
            }
            for law in laws
        ],
        "references": [each._asdict() for each in REFERENCES],
    }


def markdown(laws: Sequence[ScalingLaw], rows: Sequence[Measurement]) -> str:
    """One table of optima for each way of counting, then the laws beside the references."""
    budgets = len({row.flops_budget for row in rows})
    lines = [f"{len(rows)} runs at {budgets} compute budget{'s' if budgets > 1 else ''}."]
    for law in laws:
        lines += ["", f"Best size for a budget, N = {law.convention}:", "", *_optima(law)]
    lines += ["", "How it grows, N\\* = k·C^a and D\\* = k'·C^b:", "", *_laws(laws), "", *_notes(laws)]
    return "\n".join(lines) + "\n"


def _optima(law: ScalingLaw) -> list[str]:
    lines = ["| FLOPs | runs | N\\* | D\\* | D\\* : N\\* | bits per byte | |", "|---|---|---|---|---|---|---|"]
    return [*lines, *map(_optimum, law.optima)]


def _optimum(best: Optimum) -> str:
    return (
        f"| {best.budget:.4g} | {best.runs} | {count(best.params)} | {count(best.tokens)} | {best.ratio:.3g} | "
        f"{best.bpb:.4f} | {best.flag or 'inside the sizes'} |"
    )


def _laws(laws: Sequence[ScalingLaw]) -> list[str]:
    lines = ["| | N | budgets (FLOPs) | a | b | a + b | D\\* : N\\* |", "|---|---|---|---|---|---|---|"]
    for law in laws:
        if law.params is None or law.tokens is None:
            usable = len({best.budget for best in law.usable})
            lines.append(f"| this study | {law.convention} | {usable} usable: no law below 2 | | | | |")
            continue
        a, b = law.params.exponent, law.tokens.exponent
        spread = law.over_points
        sizes, tokens = (_interval(spread.a), _interval(spread.b)) if spread else ("", "")
        lines.append(
            f"| **this study** | {law.convention} | {_range(law)} | **{a:.3f}**{sizes} | **{b:.3f}**{tokens} | "
            f"{a + b:.3f} | {_ratio(law)} |"
        )
    for each in REFERENCES:
        lines.append(
            f"| {each.source} | {each.convention} | {each.budgets} | {each.a} | {each.b} | {each.a + each.b:.2f} | "
            f"{each.ratio} |"
        )
    return lines


def _range(law: ScalingLaw) -> str:
    budgets = [best.budget for best in law.usable]
    return f"{min(budgets):.4g} to {max(budgets):.4g}"


def _interval(edges: tuple[float, float]) -> str:
    return f" [{edges[0]:.2f}, {edges[1]:.2f}]"


def _ratio(law: ScalingLaw) -> str:
    spread = "" if law.ratio_sd is None else f" ± {law.ratio_sd:.2g}"
    return f"{law.ratio_at_middle:.3g} at {law.middle:.2g}; mean {law.ratio_mean:.3g}{spread}"


def _notes(laws: Sequence[ScalingLaw]) -> list[str]:
    notes = []
    for law in laws:
        for name, spread in (("noise of the runs", law.over_points), ("noise and budgets", law.over_budgets)):
            notes.append(f"- {law.convention}, {name} drawn anew: {_words(spread)}")
    return ["Bootstrap, 95 % percentile intervals:" if LEVEL == 0.95 else "Bootstrap:", "", *notes]


def _words(spread: Spread | None) -> str:
    if spread is None:
        return "no interval (needs two usable budgets, one of them with four runs; three to draw budgets)"
    return (
        f"a {spread.a[0]:.3f} to {spread.a[1]:.3f}, b {spread.b[0]:.3f} to {spread.b[1]:.3f} "
        f"({spread.kept} of {spread.draws} draws)"
    )
