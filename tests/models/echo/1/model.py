"""Gives back what it gets."""


class Model:
    def predict(self, inputs):
        return inputs
