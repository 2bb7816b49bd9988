"""Ends the supervisor's children when the supervisor is gone, however it went.

Run as a process of its own (`python lifeline.py`). Its standard input is a pipe whose other end the
supervisor holds. Each child, before it becomes the program it is to be, writes `+PID` into the pipe
itself, so that no child can exist unannounced; the supervisor writes `-PID` when one has ended.
The pipe's end comes only when the supervisor is gone: then every process group still announced is
asked to stop, and killed when it has not after a few seconds.

Works on every Unix: no parent-death signal is needed, and grandchildren are reached as well.
"""

import os
import signal
import sys
import time

GRACE_SECONDS = 8.0


def main() -> None:
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        sign, number = line[:1], line[1:].strip()
        if not number.isdigit() or int(number) < 2:
            continue
        if sign == "+":
            groups.add(int(number))
        elif sign == "-":
            groups.discard(int(number))
    end(groups)


def end(groups: set[int]) -> None:
    """Stop these process groups: politely, then not."""
    deadline = time.monotonic() + GRACE_SECONDS
    alive = {group for group in groups if send(group, signal.SIGTERM)}
    while alive and time.monotonic() < deadline:
        time.sleep(0.1)
        alive = {group for group in alive if send(group, 0)}
    for group in alive:
        send(group, signal.SIGKILL)


def send(group: int, number: int) -> bool:
    """Signal a process group; False when it is gone."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


if __name__ == "__main__":
    main()
