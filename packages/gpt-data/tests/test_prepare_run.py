"""The loop of parts: results in order, few jobs in memory, an error ends all at once, records are kept."""

import threading
import time
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest

from gpt_data.preparation.encode import Encoded
from gpt_data.preparation.progress import Progress
from gpt_data.preparation.run import run_parts


@dataclass
class Numbers:
    """A part that writes `count` numbers, one job each; jobs take different times."""

    index: int
    count: int
    open: Counter = field(default_factory=Counter)
    most: int = 0
    fail_at: int | None = None

    @property
    def name(self):
        return f"part_{self.index}"

    @property
    def weight(self):
        return self.count

    def jobs(self):
        for number in range(self.count):
            self.open["jobs"] += 1
            self.most = max(self.most, self.open["jobs"])
            yield lambda number=number: self.work(number)

    def work(self, number):
        if number == self.fail_at:
            raise ValueError(f"job {number} failed")
        time.sleep(0.001 * (number % 3))
        self.open["jobs"] -= 1
        return Encoded({"train": np.array([self.index * 1000 + number], "<u2")}, Counter({"train/documents": 1}), 1)


def run(parts, folder, workers=3):
    for name in ("data", "records"):
        (folder / name).mkdir(exist_ok=True)
    return run_parts(parts, folder / "data", folder / "records", workers, Progress("x", quiet=True), "counting")


@pytest.mark.parametrize("parts", [1, 2, 7])
@pytest.mark.parametrize("workers", [1, 3])
def test_results_are_written_in_order_whoever_is_first(tmp_path, parts, workers):
    made = [Numbers(i, 10 + i) for i in range(parts)]
    records = run(made, tmp_path, workers)
    for part, record in zip(made, records, strict=True):
        written = np.fromfile(tmp_path / "data" / f"train_{part.index:06d}.bin", "<u2")
        assert written.tolist() == [part.index * 1000 + i for i in range(part.count)]
        assert record.files["train"].items == part.count and record.counts == {"train/documents": part.count}


def test_few_jobs_are_read_ahead(tmp_path):
    part = Numbers(0, 200)
    run([part], tmp_path, workers=2)
    assert 2 <= part.most <= 2 * 3 + 2


def test_a_lone_part_keeps_all_threads_busy(tmp_path):
    class Threads(Numbers):
        def work(self, number):
            barrier.wait(timeout=10)  # passes only when three jobs run at the same time
            return super().work(number)

    barrier = threading.Barrier(3)
    run([Threads(0, 9)], tmp_path, workers=3)


def test_an_error_ends_all_parts_and_finished_ones_stay(tmp_path):
    made = [Numbers(0, 3), Numbers(1, 30, fail_at=25), Numbers(2, 100_000)]
    with pytest.raises(ValueError, match="job 25 failed"):
        run(made, tmp_path, workers=1)
    assert not (tmp_path / "data" / "train_000001.bin").exists()
    kept = (tmp_path / "data" / "train_000000.bin").stat().st_ino
    made = [Numbers(0, 3), Numbers(1, 5), Numbers(2, 10)]
    assert [record.files["train"].items for record in run(made, tmp_path)] == [3, 5, 10]
    assert made[0].most == 0 and (tmp_path / "data" / "train_000000.bin").stat().st_ino == kept
