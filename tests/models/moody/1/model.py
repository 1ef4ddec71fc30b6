"""While the file `down` is there it fails for good (`fatal`), for now (`passing`), or hangs and then fails; each call
writes its job into the file `ledger`."""

import time
from pathlib import Path

from forebay import ModelFailed


class Model:
    def predict(self, inputs, contexts):
        return [self._answer(one, context.job_id) for one, context in zip(inputs, contexts, strict=True)]

    def _answer(self, one, job_id):
        with open(one["ledger"], "a") as ledger:
            ledger.write(f"{job_id}\n")
        down = Path(one["down"])
        if one["mood"] == "hang":
            while down.exists():
                time.sleep(0.01)
            return ModelFailed("it hung", code="hung")
        if down.exists():
            return ModelFailed("down", code=one["mood"], retryable=one["mood"] == "passing")
        return one["n"]
