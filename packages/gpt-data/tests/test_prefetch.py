"""Batches made ahead are the same batches, and the state is that of what was handed out."""

import gc
import itertools
import subprocess
import sys
import threading
import time
import weakref

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpt_data import DatasetError, random_windows, sequential


def prefetch_threads():
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


def wait_until(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    assert condition()


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    gc.collect()
    wait_until(lambda: not prefetch_threads())


@pytest.mark.parametrize("depth", [1, 2, 7])
def test_the_batches_are_those_of_the_loader(make_dataset, depth):
    path = make_dataset().path
    plain = random_windows(path, 8, 3, prefetch=0).train
    ahead = random_windows(path, 8, 3, prefetch=depth).train
    assert ahead.batches_per_epoch == plain.batches_per_epoch and ahead.batch_shape == plain.batch_shape == (3, 8)
    for ours, expected in itertools.islice(zip(ahead, plain, strict=False), 20):
        assert torch.equal(ours.inputs, expected.inputs) and torch.equal(ours.targets, expected.targets)
        assert ahead.state_dict() == plain.state_dict()


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(done=st.integers(0, 9), wasted=st.integers(0, 5), depth=st.integers(1, 4))
def test_a_state_does_not_count_what_was_made_ahead(make_dataset, done, wasted, depth):
    path = make_dataset().path
    straight = sequential(path, 5, 2, prefetch=0).train
    ahead = sequential(path, 5, 2, prefetch=depth).train
    for _ in range(done):
        next(straight), next(ahead)
    state = ahead.state_dict()
    assert state == straight.state_dict()
    for _ in range(wasted):
        next(ahead)
    ahead.load_state_dict(state)
    for _ in range(4):
        assert torch.equal(next(ahead).inputs, next(straight).inputs)


def test_no_more_than_depth_batches_are_made_ahead(make_dataset):
    ahead = random_windows(make_dataset().path, 8, 2, prefetch=3).train
    next(ahead)
    wait_until(lambda: ahead._made is not None and ahead._made.full())
    time.sleep(0.05)
    # handed out 1, waiting 3, and one in the thread's hand
    assert ahead.loader.state_dict()["rows"] == (1 + 3 + 1) * 2


def test_an_error_is_raised_where_its_batch_is_asked_for_and_again_after(make_dataset):
    made = make_dataset(train=[1] * 40 + [259] * 40)
    ahead = sequential(made.path, 4, 2, prefetch=2).train
    (made.path / "train_000000.bin").write_bytes(np.full(80, 999, "<u2").tobytes())  # behind the loader's back
    with pytest.raises(DatasetError, match="token id 999"):
        next(ahead)
    assert not prefetch_threads()
    with pytest.raises(DatasetError, match="token id 999"):
        next(ahead)


def test_the_thread_ends_with_the_loader(make_dataset):
    ahead = random_windows(make_dataset().path, 8, 2, prefetch=2).train
    assert not prefetch_threads()  # none before the first batch
    next(ahead)
    assert len(prefetch_threads()) == 1
    del ahead
    gc.collect()
    wait_until(lambda: not prefetch_threads())


def test_closing_is_quick_and_going_on_is_possible(make_dataset):
    path = make_dataset().path
    ahead, plain = (sequential(path, 5, 2, prefetch=depth).train for depth in (2, 0))
    next(ahead), next(plain)
    began = time.monotonic()
    ahead.close()
    assert time.monotonic() - began < 0.5 and not prefetch_threads()
    ahead.close()
    assert torch.equal(next(ahead).inputs, next(plain).inputs)


def test_what_was_made_ahead_is_forgotten_with_its_thread(make_dataset):
    ahead = random_windows(make_dataset().path, 8, 2, prefetch=4).train
    next(ahead)
    queue = weakref.ref(ahead._made)
    ahead.load_state_dict(ahead.state_dict())
    gc.collect()
    assert queue() is None


@pytest.mark.slow
def test_a_program_that_ends_with_a_thread_at_work_ends_well(make_dataset):
    script = (
        "import sys, gpt_data\ndata = gpt_data.random_windows(sys.argv[1], 32, 64, prefetch=50).train\nnext(data)\n"
    )
    command = [sys.executable, "-c", script, str(make_dataset().path)]
    for _ in range(3):
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert (ended.returncode, ended.stderr) == (0, "")


def test_a_negative_depth_is_refused(make_dataset):
    with pytest.raises(ValueError, match="prefetch is -1, expected a number of batches, 0 for none"):
        random_windows(make_dataset().path, 8, 2, prefetch=-1)
