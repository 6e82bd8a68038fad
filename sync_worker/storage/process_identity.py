"""Which process of which machine holds a lease, and whether it is gone.

The rows of a killed process come back when their lease ends, but access that ends at a set second cannot wait for that:
the next process on the same machine sees that it is gone. For other machines, and without Linux's /proc, the lease
decides.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

_PROC = Path("/proc")
PARTS = 4
"""The number of parts of a valid identity."""
_STATE, _START = 0, 19
"""Fields of /proc/PID/stat, counted behind the name in brackets (proc_pid_stat(5))."""


@cache
def identity() -> str:
    """Return who this process is: machine since its start, PID namespace, PID and start time; empty when unknown."""
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        namespace = (_PROC / "self/ns/pid").stat().st_ino
        return f"{boot}/{namespace}/{os.getpid()}/{_stat(os.getpid())[_START]}"
    except (OSError, IndexError):
        return ""


def is_gone(other: str) -> bool:
    """Return whether the process `other` is known to be gone. In doubt it is alive."""
    mine, theirs = identity().split("/"), other.split("/")
    if len(mine) != PARTS or len(theirs) != PARTS or mine[:2] != theirs[:2] or not theirs[2].isdecimal():
        return False
    pid = int(theirs[2])
    try:
        os.kill(pid, 0)  # signal 0 reaches also whom /proc may hide from us
    except ProcessLookupError:
        return True
    except OSError:
        return False
    try:
        stat = _stat(pid)
        return stat[_STATE] in ("Z", "X") or stat[_START] != theirs[3]
    except (OSError, IndexError):
        return False


def _stat(pid: int) -> list[str]:
    return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
