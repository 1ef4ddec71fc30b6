"""An answer that can only be right: computed from the input, naming the job and the attempt that it was computed in.

Every run is written to the ledger before it is computed and once it is, so that runs can be counted whatever died:

    begin <job> <attempt> <this process> <the worker's process> <seconds since the epoch> <sha256 of the text>
    end <job> <attempt> <this process> <the worker's process> <seconds since the epoch>

An input may hold `kill_worker_after_s`: the worker, which is this process's parent, is killed that long after the
begin. What it holds as `emits` is said as partial output.
"""

import hashlib
import os
import signal
import time


class Model:
    def predict(self, inputs, contexts):
        digests = [hashlib.sha256(one["text"].encode()).hexdigest() for one in inputs]
        note(inputs[0]["ledger"], "begin", contexts, digests)
        deaths = [one["kill_worker_after_s"] for one in inputs if "kill_worker_after_s" in one]
        if deaths:
            time.sleep(min(deaths))
            os.kill(os.getppid(), signal.SIGKILL)
        for one, context in zip(inputs, contexts, strict=True):
            for chunk in one.get("emits", ()):
                context.emit(chunk)
        time.sleep(max(one["run_s"] for one in inputs))
        note(inputs[0]["ledger"], "end", contexts, [""] * len(contexts))
        return [
            {"job": context.job_id, "attempt": context.attempt, "answer": digest}
            for digest, context in zip(digests, contexts, strict=True)
        ]


def note(path, what, contexts, digests):
    """One write, which no other process's can tear."""
    who = f"{os.getpid()} {os.getppid()} {time.time():.6f}"
    lines = [
        f"{what} {context.job_id} {context.attempt} {who} {digest}".rstrip() + "\n"
        for context, digest in zip(contexts, digests, strict=True)
    ]
    ledger = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(ledger, "".join(lines).encode())
    os.close(ledger)
