"""A rank that is killed ends ranks that are in no collective, and nothing else is taken for a killed rank."""

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import killed_worker
import pytest
from torch.distributed import HashStore

from gpt_core import contact
from gpt_core.contact import Contact


@pytest.mark.parametrize(("rank", "parent_stops"), [(0, False), (1, True)])
def test_a_killed_rank_ends_ranks_that_are_stuck(tmp_path, fork_ranks, rank, parent_stops):
    started = time.monotonic()
    ended = fork_ranks(tmp_path, 3, killed_worker.killed, rank, parent_stops, timeout=30)
    assert time.monotonic() - started < 30 - 9, "with the grace that a test shortens by 9 s"
    assert [each.code for each in ended] == [-9 if each == rank else 1 for each in range(3)]
    (told,) = [each.stderr for each in ended if each.stderr]
    assert told.endswith(f" lost contact with rank {rank}, which was killed or whose machine is gone\n")
    assert told.startswith("error: rank ") and told.count("\n") == 1


def test_a_rank_that_is_stopped_or_holds_pythons_lock_is_not_dead(tmp_path, fork_ranks):
    ended = fork_ranks(tmp_path, 2, killed_worker.busy, 1, timeout=60)
    assert [(each.code, each.stderr) for each in ended] == [(0, ""), (0, "")]


def test_what_a_killed_rank_has_forked_does_not_hide_its_death(tmp_path, fork_ranks):
    started = time.monotonic()
    ended = fork_ranks(tmp_path, 2, killed_worker.forks, 20, timeout=60)
    assert time.monotonic() - started < 15
    assert [each.code for each in ended] == [1, -9]
    assert "rank 0 lost contact with rank 1" in ended[0].stderr


# --- connections -------------------------------------------------------------------------------------------------


def connect(size, master="127.0.0.1"):
    """`size` ranks in this process."""
    store = HashStore()
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(lambda rank: Contact(store, rank, size, master), range(size)))


def soon(ask):
    """The first answer that is not None; None after a while."""
    until = time.monotonic() + 5
    while (answer := ask()) is None and time.monotonic() < until:
        time.sleep(0.01)
    return answer


def test_rank_0_sees_each_death_once_and_the_others_that_of_rank_0():
    hub, one, two, three = connect(4)
    assert [each.lost() for each in (hub, one, two, three)] == [None] * 4
    two.drop()
    assert soon(hub.lost) == 2
    assert hub.lost() is None and one.lost() is None
    hub.drop()
    assert (soon(one.lost), soon(three.lost)) == (0, 0)
    one.close(), three.close()


def test_a_rank_that_leaves_in_order_is_not_dead():
    hub, one, two = connect(3)
    one.close()
    time.sleep(0.1)
    assert hub.lost() is None
    two.drop()
    assert soon(hub.lost) == 2, "the others are still watched"
    hub.close()


def test_all_leave_at_once():
    for _ in range(20):
        ranks = connect(3)
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(lambda each: each.close(), ranks))
        assert [each.lost() for each in ranks] == [None] * 3


def test_probes_find_a_machine_that_is_gone_within_16_s():
    ranks = connect(2)
    for peer in [*ranks[0]._peers.values(), *ranks[1]._peers.values()]:
        assert peer.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        wait, times, idle = (
            peer.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))
            for name in ("TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_KEEPIDLE")
        )
        assert idle + wait * times == 16
    for each in ranks:
        each.close()


def test_an_address_at_which_another_program_answers_is_passed_over(monkeypatch):
    """As where rank 0's name means the machine itself, on every machine."""
    asked = []

    def answer(server):
        peer, _ = server.accept()
        with peer:
            asked.append(peer.recv(100))
            peer.sendall(b"220 mail.example.com ready")

    with socket.create_server(("127.0.0.2", 0)) as other:
        connects = socket.create_connection
        monkeypatch.setattr(contact, "_names_of_this_machine", lambda master: ["nowhere.invalid", "mail", "here"])
        there = {"mail": other.getsockname()}

        def create_connection(address, timeout):
            if address[0] == "nowhere.invalid":
                raise socket.gaierror("no such name")
            return connects(there.get(address[0], ("127.0.0.1", address[1])), timeout)

        monkeypatch.setattr(socket, "create_connection", create_connection)
        thread = threading.Thread(target=answer, args=(other,))
        thread.start()
        hub, one = connect(2)
        thread.join(10)
    assert len(asked) == 1 and len(asked[0]) == 20
    one.drop()
    assert soon(hub.lost) == 1
    hub.close()


def test_a_stranger_is_not_taken_for_a_rank(monkeypatch):
    connects = socket.create_connection

    def after_a_stranger(address, timeout):
        with connects(address, timeout) as stranger:
            stranger.sendall(bytes(20))
            assert stranger.recv(1) == b""
        return connects(address, timeout)

    monkeypatch.setattr(socket, "create_connection", after_a_stranger)
    hub, one = connect(2)
    assert list(hub._peers) == [1] and hub.lost() is None
    one.close(), hub.close()


def test_a_rank_that_reaches_nobody_says_so_and_holds_nobody_up(monkeypatch, capfd):
    monkeypatch.setattr(contact, "_names_of_this_machine", lambda master: [])
    started = time.monotonic()
    hub, one = connect(2)
    assert time.monotonic() - started < 5
    assert "warning: rank 1 cannot connect to rank 0" in capfd.readouterr().err
    assert hub.lost() is None and one.lost() is None
    hub.close(), one.close()


def test_the_addresses_of_a_machine():
    names = contact._names_of_this_machine("127.0.0.1")
    assert names == ["127.0.0.1", socket.gethostname()]
    assert contact._names_of_this_machine("nowhere.invalid") == ["nowhere.invalid", socket.gethostname()]
