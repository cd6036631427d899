"""Whether `gpt_kernels` reached what its cases ask of it."""

from __future__ import annotations

from .case import Case, Goal, Setting
from .measure import Row

NOT_SLOWER_THAN_LIGER = Goal("speed", 1.0, "liger")


def judge(case: Case, rows: list[Row], setting: Setting) -> str:
    """ "met: ..." or "missed: ..." for each goal of the pass that `rows`, one a side, are about; empty without goals.

    Goals are set for a GPU and full sizes: elsewhere the answer is why they were not measured.
    """
    goals = [*case.goals, *([NOT_SLOWER_THAN_LIGER] if "liger" in case.peers else [])]
    sides = {row.side: row for row in rows}
    ours = sides["gpt_kernels"]
    answers = []
    for goal in goals:
        if goal.direction in ("", ours.direction):
            found = None if not setting.full or setting.device.type != "cuda" else _figure(goal, ours, sides)
            sign = "<=" if goal.figure == "memory" else ">="
            asked = f"{goal.figure} {sign} {goal.bound:.3g} x {goal.than or 'copies'}"
            if found is None:
                answers.append(f"{asked}: not measured")
            else:
                met = found <= goal.bound if goal.figure == "memory" else found >= goal.bound
                answers.append(f"{asked}: {'met' if met else 'missed'} ({found:.3g})")
    return "; ".join(answers)


def _figure(goal: Goal, ours: Row, sides: dict[str, Row]) -> float | None:
    if goal.figure == "bandwidth":
        return None if ours.percent_of_ceiling is None else ours.percent_of_ceiling / 100
    other = sides.get(goal.than)
    if other is None:
        return None
    if goal.figure == "speed":
        return other.milliseconds / ours.milliseconds if other.milliseconds and ours.milliseconds else None
    return ours.peak_megabytes / other.peak_megabytes if ours.peak_megabytes and other.peak_megabytes else None
