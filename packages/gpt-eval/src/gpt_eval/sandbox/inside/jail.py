"""Linux isolation for `warden`: namespaces, a root of its own, another user.

With root's rights or where the kernel lets a user make namespaces the program sees: no network, no process but its own,
a root made of read-only mounts of the interpreter and the system's libraries, and a small writable folder in memory.
Without, it keeps resource limits only; what was in force is in every result. No function here may fail halfway into a
weaker jail without saying so: each returns what it achieved.
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
SPACES = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = (
    1,
    2,
    4,
    8,
    32,
    4096,
    16384,
    1 << 18,
)
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 4, 24, 36, 38
PR_SET_SECCOMP = 22
SIGKILL = 9
FIRST_UID, UIDS = 1_000_000_000, 1_000_000_000
"""Users that no system hands out; each execution takes one at random, so RLIMIT_NPROC counts it alone."""

SYSTEM = ("/usr", "/bin", "/lib", "/lib64", "/lib32", "/etc/ld.so.cache", "/etc/alternatives")
WORK = "/box"
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")


def libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)


def checked(name: str, status: int) -> None:
    if status:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")


def die_with_parent() -> None:
    """Killed when the process that started this one dies; not readable by others of the same user."""
    if sys.platform == "linux":
        libc().prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
        libc().prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def adopt_orphans() -> None:
    """Processes whose parent ends become children of this one, so none gets away (Linux)."""
    if sys.platform == "linux":
        libc().prctl(PR_SET_SUBREAPER, 1, 0, 0, 0)


def separate() -> list[str]:
    """Puts the processes that this one forks from now on in namespaces of their own. Returns their names.

    Root makes them directly and later changes to another user. Another user makes them within a user namespace, where
    it stays itself.
    """
    if sys.platform != "linux":
        return []
    system, uid, gid = libc(), os.getuid(), os.getgid()
    if system.unshare(SPACES if uid == 0 else SPACES | CLONE_NEWUSER):
        return ["network namespace"] if system.unshare(CLONE_NEWNET) == 0 else []
    if uid != 0:
        write("/proc/self/setgroups", "deny")
        write("/proc/self/uid_map", f"{uid} {uid} 1")
        write("/proc/self/gid_map", f"{gid} {gid} 1")
    return ["network namespace", "process namespace", "mount namespace", *(["user namespace"] if uid else [])]


def write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    status = libc().mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode())
    checked(f"mount {target}", status)


def enter_root(base: str, show: Sequence[str], writable_bytes: int) -> bool:
    """Makes a root of read-only views and changes to it; the working folder is WORK, in memory. Needs `separate`.

    base: an empty folder to build it on, seen by this namespace only.
    show: paths that the program needs besides the system's: the interpreter, this package's scripts.
    Returns whether there is a /proc, which the memory of all processes together is read from.
    After chroot the kernel refuses further user namespaces, so the capabilities that leaving it needs are out of reach.
    """
    mount("none", "/", "", MS_REC | MS_PRIVATE)
    mount("tmpfs", base, "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=755")
    for path in dict.fromkeys([*SYSTEM, *DEVICES, *show]):
        reveal(path, base)
    for folder in (WORK, "/proc"):
        os.makedirs(base + folder, exist_ok=True)
    if not os.path.lexists(base + "/tmp"):
        os.symlink(WORK, base + "/tmp")
    options = f"size={writable_bytes},nr_inodes=4096,mode=1777"
    mount("tmpfs", base + WORK, "tmpfs", MS_NOSUID | MS_NODEV, options)
    listed = True
    try:
        mount("proc", base + "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    except OSError:  # some containers cover parts of /proc, and then a user may not mount a whole one
        listed = False
    mount("none", base, "", MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)
    os.chroot(base)
    os.chdir(WORK)
    return listed


def reveal(path: str, base: str) -> None:
    """A read-only view of one path of the machine in the new root; nothing where it does not exist."""
    target = base + path
    if not os.path.lexists(path) or os.path.lexists(target):
        return
    os.makedirs(os.path.dirname(target), mode=0o755, exist_ok=True)
    if os.path.islink(path):
        os.symlink(os.readlink(path), target)
        return
    if os.path.isdir(path):
        os.makedirs(target, mode=0o755)
    else:
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
    mount(path, target, "", MS_BIND | MS_REC)
    if path not in DEVICES:
        kept = os.statvfs(target).f_flag & (MS_NOSUID | MS_NODEV | MS_NOEXEC)  # a user namespace may not lift these
        mount("none", target, "", MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | kept)


CALLS = {
    "x86_64": (
        0xC000003E,
        41,
        (29, 30, 64, 68, 101, 240, 248, 249, 250, 272, 298, 308, 310, 311, 319, 321, 323, 425, 438, 447),
    ),
    "aarch64": (
        0xC00000B7,
        198,
        (194, 196, 190, 186, 117, 180, 217, 218, 219, 97, 241, 268, 270, 271, 279, 280, 282, 425, 438, 447),
    ),
}
"""Per machine: the kernel's name of it, its `socket`, and what is refused: shmget, shmat, semget, msgget, ptrace,
mq_open, add_key, request_key, keyctl, unshare, perf_event_open, setns, process_vm_readv, process_vm_writev,
memfd_create, bpf, userfaultfd, io_uring_setup, pidfd_getfd, memfd_secret."""

FAMILIES = (1, 2, 10)
"""Of sockets: AF_UNIX, AF_INET, AF_INET6. Others (AF_VSOCK: the host of a virtual machine) have no namespace."""


def refuse_calls() -> bool:
    """Refuses, for good and for what this process starts, calls that get around the other bounds.

    Memory that no process has mapped (memfd, System V) is in no limit and in no count; keys and sockets of some kinds
    are in no namespace. Returns whether this kernel and machine have such a filter.
    """
    if sys.platform != "linux" or os.uname().machine not in CALLS or sys.maxsize < 2**32:
        return False
    architecture, socket, refused = CALLS[os.uname().machine]
    load, equal, at_least, answer, allow, refuse = 0x20, 0x15, 0x35, 0x06, 0x7FFF0000, 0x00050001  # EPERM
    code = [(load, 0, 0, 4), (equal, 1, 0, architecture), (answer, 0, 0, refuse), (load, 0, 0, 0)]
    code += [(at_least, 0, 1, 0x40000000), (answer, 0, 0, refuse)]  # the x32 names of the same calls
    for number in refused:
        code += [(equal, 0, 1, number), (answer, 0, 0, refuse)]
    code += [(equal, 1, 0, socket), (answer, 0, 0, allow), (load, 0, 0, 16)]
    for family in FAMILIES:
        code += [(equal, 0, 1, family), (answer, 0, 0, allow)]
    code += [(answer, 0, 0, refuse)]
    packed = b"".join(struct.pack("=HBBI", *each) for each in code)
    held = ctypes.create_string_buffer(packed)
    program = struct.pack("@HP", len(code), ctypes.addressof(held))
    system = libc()
    checked("no_new_privs", system.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    return system.prctl(PR_SET_SECCOMP, 2, ctypes.create_string_buffer(program), 0, 0) == 0


def reachable(path: str) -> bool:
    """Whether a user without rights can get to a file: every folder above it lets others through."""
    while path not in ("", "/"):
        path = os.path.dirname(path)
        if not os.stat(path).st_mode & 0o001:
            return False
    return True


def limit(bounds: Mapping[str, int]) -> None:
    """Resource limits for this process and what it starts; a bound above the one in force is that one."""
    stack = min(64 * 1024 * 1024, bounds["memory"])
    wanted = {
        "RLIMIT_CPU": (bounds["cpu"], bounds["cpu"] + 1),
        "RLIMIT_NPROC": (bounds["processes"],) * 2,
        "RLIMIT_FSIZE": (bounds["file"],) * 2,
        "RLIMIT_CORE": (0, 0),
        "RLIMIT_NOFILE": (256, 256),
        "RLIMIT_MEMLOCK": (0, 0),
    }
    if sys.platform == "linux" and bounds["address_space"]:
        wanted |= {
            "RLIMIT_AS": (bounds["memory"],) * 2,
            "RLIMIT_DATA": (bounds["memory"],) * 2,
            "RLIMIT_STACK": (stack, bounds["memory"]),
        }
    for name, (soft, hard) in wanted.items():
        if not hasattr(resource, name):
            continue
        kind = getattr(resource, name)
        ceiling = resource.getrlimit(kind)[1]
        if ceiling != resource.RLIM_INFINITY:
            soft, hard = min(soft, ceiling), min(hard, ceiling)
        resource.setrlimit(kind, (soft, hard))


def become(uid: int | None) -> None:
    """Gives up every right for good: the capabilities, the groups and, where uid is given, the user."""
    if sys.platform != "linux":
        return
    system = libc()
    if uid is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
    for capability in range(64):
        if system.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0):
            break
    if uid is not None:
        os.setresuid(uid, uid, uid)
    checked("no_new_privs", system.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    system.prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)  # setresuid cleared it
