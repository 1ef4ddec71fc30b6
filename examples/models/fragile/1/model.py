"""Fails on each input that it has not seen before: for good, or, if the input says so, in a way that may pass."""

from forebay import ModelFailed


class Model:
    def load(self):
        self.seen = []

    def predict(self, inputs):
        return [self.look_at(one) for one in inputs]

    def look_at(self, one):
        if one in self.seen:
            return {"seen": one}
        self.seen.append(one)
        return ModelFailed("never seen before", code="never_seen", retryable=one.get("may_pass", False))
