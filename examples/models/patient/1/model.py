"""Takes a second for each step that its input asks for, and stops as soon as nobody wants the output any more."""


class Model:
    def predict(self, inputs, contexts):
        return [self.walk(steps, context) for steps, context in zip(inputs, contexts, strict=True)]

    def walk(self, steps, context):
        for _ in range(steps):
            if context.canceled.wait(1.0):
                return None
        return {"steps": steps}
