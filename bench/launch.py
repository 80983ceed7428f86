"""Run commands one after the other and say what they took: a small process, so that it does not show in the figures.

Linux counts the memory of the process that starts a program into that program's peak (`ru_maxrss` survives execve(2)),
so the bench itself, which holds images, must not be that process. Reads `{"commands": [[word, …], …]}` from standard
input; writes one JSON object to standard output. The commands' own output goes to standard error.
"""

import json
import os
import sys
import time


def main() -> int:
    """Run all commands; stop at the first that fails."""
    total = {"wall": 0.0, "cpu": 0.0, "peak": 0, "written": 0, "dirtied": 0, "status": 0}
    for command in json.load(sys.stdin)["commands"]:
        took = run(command)
        total = {key: max(total[key], took[key]) if key == "peak" else total[key] + took[key] for key in total}
        if total["status"]:
            break
    json.dump(total, sys.stdout)
    return 0


def run(command: list[str]) -> dict[str, float]:
    """Run a command; times in seconds, everything else in bytes."""
    began = time.monotonic()
    pid = os.posix_spawnp(command[0], command, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, 2, 1)])
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    wall = time.monotonic() - began
    io = read_io(pid)  # it has ended, but is there until it is waited for
    _, status, usage = os.wait4(pid, 0)
    return {
        "wall": wall,
        "cpu": usage.ru_utime + usage.ru_stime,
        "peak": usage.ru_maxrss * 1024,
        "written": io["wchar"],
        "dirtied": io["write_bytes"],
        "status": abs(os.waitstatus_to_exitcode(status)),
    }


def read_io(pid: int) -> dict[str, int]:
    """Read proc_pid_io(5): of all threads, and of the children that were waited for."""
    with open(f"/proc/{pid}/io") as lines:
        return {name: int(value) for name, value in (line.split(": ") for line in lines)}


if __name__ == "__main__":
    sys.exit(main())
