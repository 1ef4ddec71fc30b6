"""Does the harm that its input asks for, as soon as that input is anywhere in the batch."""

import os
import signal
import threading


class Model:
    def predict(self, inputs):
        for one in inputs:
            getattr(self, one["harm"])()
        if any(one["harm"] == "miscount" for one in inputs):
            return inputs[1:]
        return [ValueError("refused by itself") if one["harm"] == "refuse" else one for one in inputs]

    def none(self):
        pass

    refuse = miscount = none

    def die(self):
        os.kill(os.getpid(), signal.SIGKILL)

    def crash(self):
        os.abort()

    def leave(self):
        os._exit(3)

    def hang(self):
        threading.Event().wait()

    def raise_error(self):
        raise RuntimeError("a secret of the model's author")

    def allocate(self):
        kept = []
        while True:
            kept.append(bytearray(os.urandom(1)) * 64_000_000)

    def hoard(self):
        self.kept = []
        while True:
            self.kept.append(bytearray(os.urandom(1)) * 64_000_000)

    def fork(self):
        if os.fork() == 0:
            threading.Event().wait()  # holds every file that its parent had, the runner's link too
        os.abort()
