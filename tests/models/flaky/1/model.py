"""Fails with a failure that may pass in the first `fail` attempts of each job, then answers with the attempt."""

from forebay import ModelFailed


class Model:
    def predict(self, inputs, contexts):
        return [
            ModelFailed("not yet", code="not_yet", retryable=True) if context.attempt <= one["fail"] else context.attempt
            for one, context in zip(inputs, contexts, strict=True)
        ]
