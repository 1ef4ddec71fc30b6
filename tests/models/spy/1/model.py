"""Tells what a model can see of the service."""

import os


class Model:
    def predict(self, inputs):
        return [{"pid": os.getpid(), "environ": dict(os.environ), "files": _open_files()} for _ in inputs]


def _open_files():
    found = []
    for number in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{number}"))
        except OSError:  # it was the listing's own
            continue
    return found
