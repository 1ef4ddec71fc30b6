"""An answer that can only be right: computed from the input, naming the job and the attempt that it was computed in.

Every run is written to the ledger before it answers, so that runs can be counted whatever died afterwards.
"""

import hashlib
import os
import time


class Model:
    def predict(self, inputs, contexts):
        ledger = os.open(inputs[0]["ledger"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        lines = "".join(f"{context.job_id} {context.attempt}\n" for context in contexts)
        os.write(ledger, lines.encode())
        os.close(ledger)
        time.sleep(inputs[0]["run_s"])
        return [
            {
                "job": context.job_id,
                "attempt": context.attempt,
                "answer": hashlib.sha256(one["text"].encode()).hexdigest(),
            }
            for one, context in zip(inputs, contexts, strict=True)
        ]
