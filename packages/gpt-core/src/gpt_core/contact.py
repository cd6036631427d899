"""How a process of a run knows that another one is dead: the kernel closes the connections of a process that is gone.

However it went (SIGKILL, out of memory, a crash), and never before it goes. A process that computes in C with Python's
lock held, waits for a slow disk or is stopped in a debugger keeps its connections; a heartbeat of its own would fall
silent, and a healthy run be ended. A machine that is gone closes nothing, but neither does its kernel answer the probes
of the others' kernels; a machine that is merely busy does, whatever its processes do.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import sys
import time
import weakref
from contextlib import suppress

import torch.distributed as dist

PATIENCE_SECONDS = 30.0  # for the ranks to connect; all of them come from the same collective
CONNECT_SECONDS = 5.0
# A machine is taken for gone after 16 s without an answer to any of three probes. Longer would break the promise that
# all ends within 30 s; a network that is down for so long mostly breaks the collectives, too.
KEEPALIVE = {"TCP_KEEPIDLE": 4, "TCP_KEEPINTVL": 4, "TCP_KEEPCNT": 3}
BYE = b"."


class Contact:
    """Connections between rank 0 and each other rank; collective.

    Rank 0 sees every death, the others that of rank 0. A rank that cannot reach rank 0 says so and goes on: what it
    loses is only that it, or the others, learn of a death late.
    """

    def __init__(self, store: dist.Store, rank: int, world_size: int, master: str):
        """master: the name or address at which all ranks find the store's machine."""
        self._peers: dict[int, socket.socket] = {}
        if rank == 0:
            self._gather(store, world_size, master)
        else:
            self._join(store, rank)
        for peer in self._peers.values():
            peer.setblocking(False)
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in KEEPALIVE.items():
                if hasattr(socket, option):  # as on Linux
                    peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
        _close_after_fork(weakref.ref(self))

    def lost(self) -> int | None:
        """A rank whose process is gone, told once; None if there is none. Never waits."""
        for rank, peer in list(self._peers.items()):
            try:
                said = peer.recv(len(BYE))
            except BlockingIOError:  # it is there, and says nothing
                continue
            except OSError:  # the connection was reset, or its machine has not answered
                said = b""
            self._peers.pop(rank).close()
            if said != BYE:
                return rank
        return None

    def close(self) -> None:
        """Leave in order: the others are not to take it for a death."""
        for peer in self._peers.values():
            with suppress(OSError):  # it is gone itself
                peer.send(BYE)
        self.drop()

    def drop(self) -> None:
        """Close this process's connections without a word."""
        for peer in self._peers.values():
            peer.close()
        self._peers.clear()

    def _gather(self, store: dist.Store, world_size: int, master: str) -> None:
        """Rank 0: wait for all others. They know where from the store, and show a secret that they have from there."""
        dual = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if dual else socket.AF_INET
        with socket.create_server(("", 0), family=family, backlog=world_size, dualstack_ipv6=dual) as server:
            secret = secrets.token_bytes(16)
            where = {"hosts": _names_of_this_machine(master), "port": server.getsockname()[1], "secret": secret.hex()}
            store.set("where", json.dumps(where))
            server.settimeout(0.2)
            until = time.monotonic() + PATIENCE_SECONDS
            while len(self._peers) + store.add("given up", 0) < world_size - 1 and time.monotonic() < until:
                try:
                    peer, _ = server.accept()
                except TimeoutError:
                    continue
                try:
                    peer.settimeout(CONNECT_SECONDS)
                    greeting = _receive(peer, len(secret) + 4)
                    rank = int.from_bytes(greeting[len(secret) :], "big")
                    if not secrets.compare_digest(greeting[: len(secret)], secret) or not 0 < rank < world_size:
                        raise OSError("not a rank of this run")
                    peer.sendall(secret[::-1])
                except OSError:
                    peer.close()
                else:
                    self._peers[rank] = peer

    def _join(self, store: dist.Store, rank: int) -> None:
        """Another rank: connect to rank 0, by the first of its addresses at which it answers."""
        where = json.loads(store.get("where"))
        secret = bytes.fromhex(where["secret"])
        for host in where["hosts"]:
            try:
                peer = socket.create_connection((host, where["port"]), timeout=CONNECT_SECONDS)
            except OSError:
                continue
            try:
                peer.sendall(secret + rank.to_bytes(4, "big"))
                peer.settimeout(PATIENCE_SECONDS)
                if _receive(peer, len(secret)) != secret[::-1]:
                    raise OSError("another program")
            except OSError:
                peer.close()
            else:
                self._peers[0] = peer
                return
        store.add("given up", 1)
        print(
            f"warning: rank {rank} cannot connect to rank 0 at {', '.join(where['hosts'])} (port {where['port']}): if "
            "one of them is killed, the others may hang until the launcher ends them",
            file=sys.stderr,
            flush=True,
        )


def _receive(peer: socket.socket, size: int) -> bytes:
    """Exactly `size` bytes: what comes after them is for `Contact.lost`."""
    received = b""
    while len(received) < size:
        more = peer.recv(size - len(received))
        if not more:
            raise OSError("closed")
        received += more
    return received


def _names_of_this_machine(master: str) -> list[str]:
    """Addresses for the others to try: that of the network which carries the store, the store's (rank 0 mostly runs on
    that machine), and this machine's name."""
    names = [master, socket.gethostname()]
    with suppress(OSError):
        family, kind, _, _, address = socket.getaddrinfo(master, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(address)  # sends nothing: it only chooses the way
            names.insert(0, probe.getsockname()[0])
    return list(dict.fromkeys(names))


def _close_after_fork(contact: weakref.ref[Contact]) -> None:
    """A forked process that lives on would keep the connections of its dead parent open."""

    def close() -> None:
        if (made := contact()) is not None:
            made.drop()

    os.register_at_fork(after_in_child=close)
