"""Gives back what it gets, a tenth of a second later."""

import time


class Model:
    def predict(self, inputs):
        time.sleep(0.1)
        return inputs
