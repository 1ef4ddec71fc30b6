"""Never answers, so that everything else waits."""

import threading


class Model:
    def predict(self, inputs):
        threading.Event().wait()
