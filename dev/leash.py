"""Runs a command that must not outlive whoever started it: `python leash.py COMMAND...`.

Prints the command's process id, then obeys standard input: each byte is the number of a signal for the command. End of
file, which the death of the starter brings however it dies, is SIGKILL. Exits with the command's status, or with 128 +
the signal that ended it. What the command prints goes to standard error.

A process of its own, because the kernel's way (PR_SET_PDEATHSIG) kills when the *thread* that started the command ends,
and exists on Linux only.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading

SIGNALS_AT_ONCE = 64


def main() -> int:
    command = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=sys.stderr)
    print(command.pid, flush=True)
    threading.Thread(target=obey, args=(command,), daemon=True).start()
    status = command.wait()
    return status if status >= 0 else 128 - status


def obey(command: subprocess.Popen[bytes]) -> None:
    while signals := os.read(sys.stdin.fileno(), SIGNALS_AT_ONCE):
        for number in signals:
            command.send_signal(number)  # does nothing once the command has ended
    command.kill()


if __name__ == "__main__":
    sys.exit(main())
