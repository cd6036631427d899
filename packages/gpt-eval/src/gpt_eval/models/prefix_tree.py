"""What a list of scoring requests shares, found before the model sees any of it. Pure planning on token ids, no torch.

A request (context, continuation) feeds context + continuation[:-1] and reads the model's prediction at the last
len(continuation) places. Requests with a long common beginning form a group: the beginning (the stem) is encoded
once, and what comes after it is one tree of tokens (the branch), in which equal beginnings are one path. Two answers
of one token each are then two reads at the same place. Groups that begin alike (fixed few-shot examples) form a run,
whose beginning is encoded once for all of them.

Nothing here changes a number: every read still sees exactly the tokens of its own request.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Request = tuple[Sequence[int], Sequence[int]]

MAX_BRANCH = 256
"""Tokens that a branch may have where its stem is shorter: its attention grows with the square."""
MIN_RUN_PREFIX = 64
"""Tokens that groups must share to be worth a run."""


class Segment(NamedTuple):
    """Nodes start ... end - 1 of a branch are a path; `above` are the nodes between the stem and the first of them."""

    start: int
    end: int
    above: Ints


@dataclass(frozen=True)
class Group:
    """A stem and the tree on top of it. Place p < len(stem) is a stem token; len(stem) + j is node j of the branch."""

    stem: Ints
    branch: Ints
    """Token of each node, parents before children."""
    segments: tuple[Segment, ...]
    places: Ints
    """(R,) where each read takes place."""
    targets: Ints
    """(R,) the token whose probability is read."""
    slots: Ints
    """(R,) where the read's result goes: the flat index of the token over all requests' continuations."""

    def depths(self) -> Ints:
        """(L,) tokens between the stem's end and each node: its position is len(stem) + depth."""
        depths = np.zeros(len(self.branch), dtype=np.int64)
        for start, end, above in self.segments:
            depths[start:end] = np.arange(len(above), len(above) + end - start)
        return depths

    def sight(self) -> npt.NDArray[np.bool_]:
        """(L, L) True where node i may look at node j: its ancestors and itself."""
        L = len(self.branch)
        seen = np.zeros((L, L), dtype=bool)
        for start, end, above in self.segments:
            seen[start:end, above] = True
            seen[start:end, start:end] = np.tri(end - start, dtype=bool)
        return seen


@dataclass(frozen=True)
class Run:
    """Groups whose stems all begin with the same `shared` tokens (0: nothing worth encoding first)."""

    shared: int
    groups: tuple[Group, ...]


def plan(requests: Sequence[Request], *, share: bool = True, min_saving: int = 2048) -> list[Run]:
    """Groups and runs that answer all requests.

    share: False puts every different fed sequence in a group of its own (models that cannot branch).
    min_saving: tokens that a run must save; below, its groups are better mixed with others in full batches.
    """
    sequences = _Sequences(requests)
    groups = [sequences.group(members) for members in sequences.members(share)]
    return _runs(groups, min_saving) if share else [Run(0, tuple(groups))]


def common_length(a: Ints, b: Ints) -> int:
    """Tokens that two sequences begin with alike."""
    n = min(len(a), len(b))
    differ = a[:n] != b[:n]
    first = int(differ.argmax()) if n else 0
    return first if n and differ[first] else n


class _Sequences:
    """The different fed sequences in lexicographic order, with the requests that read each."""

    def __init__(self, requests: Sequence[Request]):
        arrays: dict[int, Ints] = {}  # choices of an item usually hold one and the same context object

        def array(ids: Sequence[int]) -> Ints:
            if id(ids) not in arrays:
                arrays[id(ids)] = np.asarray(ids, dtype=np.int64)
            return arrays[id(ids)]

        self.conts = [array(cont) for _, cont in requests]
        feds = [np.concatenate([array(ctx), cont[:-1]]) for (ctx, _), cont in zip(requests, self.conts, strict=True)]
        self.offsets = np.concatenate([[0], np.cumsum([len(cont) for cont in self.conts])])
        by_bytes: dict[bytes, list[int]] = {}
        for request, fed in enumerate(feds):  # big-endian bytes of ids >= 0 sort like the ids
            by_bytes.setdefault(fed.astype(">i8").tobytes(), []).append(request)
        self.readers = [by_bytes[key] for key in sorted(by_bytes)]
        self.feds = [feds[readers[0]] for readers in self.readers]
        self.common = [0, *(common_length(a, b) for a, b in zip(self.feds, self.feds[1:], strict=False))]

    def members(self, share: bool) -> list[range]:
        """Which neighbours form a group: those that save tokens and leave stem and branch in proportion."""
        groups: list[range] = []
        start = stem = nodes = 0
        for i, fed in enumerate(self.feds):
            common = self.common[i]
            shorter = min(stem, common)
            joins = share and 2 * shorter >= stem and 4 * shorter >= len(fed) and i > start
            if joins and nodes + len(fed) - common - shorter <= max(MAX_BRANCH, shorter):
                stem, nodes = shorter, nodes + len(fed) - common
                continue
            if i > start:
                groups.append(range(start, i))
            start, stem, nodes = i, len(fed), len(fed)
        if self.feds:
            groups.append(range(start, len(self.feds)))
        return groups

    def group(self, members: range) -> Group:
        """The tree of some neighbouring sequences."""
        first = self.feds[members[0]]
        stem = min([len(first), *(self.common[i] for i in members[1:])])
        branch: list[Ints] = []
        segments: list[Segment] = []
        places: list[Ints] = []
        path = np.zeros(0, dtype=np.int64)  # nodes of the latest sequence, from the stem's end on
        size = 0
        for i in members:
            fed = self.feds[i]
            above = path[: max(0, self.common[i] - stem)] if i > members[0] else path
            new = fed[stem + len(above) :]
            path = np.concatenate([above, np.arange(size, size + len(new))])
            if len(new):
                segments.append(Segment(size, size + len(new), above))
                branch.append(new)
                size += len(new)
            where = np.concatenate([np.arange(stem), stem + path])
            places += [where[len(fed) - len(self.conts[request]) :] for request in self.readers[i]]
        requests = [request for i in members for request in self.readers[i]]
        return Group(
            stem=first[:stem],
            branch=np.concatenate(branch) if branch else np.zeros(0, dtype=np.int64),
            segments=tuple(segments),
            places=np.concatenate(places),
            targets=np.concatenate([self.conts[request] for request in requests]),
            slots=np.concatenate([np.arange(self.offsets[r], self.offsets[r + 1]) for r in requests]),
        )


def _runs(groups: Sequence[Group], min_saving: int) -> list[Run]:
    """Neighbours that share a long beginning; all that share none, or too little, come together in one run."""
    runs: list[Run] = []
    alone: list[Group] = []
    start = 0
    while start < len(groups):
        end, shared = start + 1, int(groups[start].places.min())
        while end < len(groups):
            common = common_length(groups[end - 1].stem, groups[end].stem)
            shorter = min(shared, common, int(groups[end].places.min()))  # nothing is read in the shared part
            if shorter < MIN_RUN_PREFIX or shorter * (end - start) < shared * (end - start - 1):
                break
            end, shared = end + 1, shorter
        if shared * (end - start - 1) >= min_saving:
            runs.append(Run(shared, tuple(groups[start:end])))
        else:
            alone += groups[start:end]
        start = end
    return [*runs, Run(0, tuple(alone))] if alone else runs
