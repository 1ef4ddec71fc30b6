"""Python handlers: a class of the user's own. It may do anything, so the catalog admits only models named as trusted.

    # models/shout/1/model.py
    class Model:
        def load(self, folder):               # optional; folder is a pathlib.Path with this version's files
            self.mark = (folder / "mark.txt").read_text().strip()

        def predict(self, inputs):            # a list of inputs in, a list of as many outputs out
            return [self.answer(text) for text in inputs]

        def answer(self, text):
            if not isinstance(text, str):
                return ValueError("send a string")   # fails this input alone; raising would fail the whole batch
            return {"text": text.upper() + self.mark}

`predict(self, inputs, contexts)` also gets one `ItemContext` per input: `job_id`, `attempt`, `parameters`, and
`canceled`, like a `threading.Event`, which is set once nobody wants this input's output any more. To whoever watches,
`context.progress(0.4)` says how far it is, and `context.emit(chunk)` shows a piece of output at once. An output can be
a `forebay.ModelFailed("message", code="too_short")`, whose message and code the caller sees; of other exceptions the
caller sees the type only, and the log the rest. `close(self)`, if there is one, is called at the end.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import structlog

from forebay.catalog.options import PythonOptions, runtime_options
from forebay.core.errors import Misconfigured, ModelFailed
from forebay.core.model import ModelSpec
from forebay.ports.runtime import ItemContext, Model, Runtime

log = structlog.get_logger()


class PythonRuntime(Runtime):
    """Imports the handler's file from the version's folder, makes one instance and calls its `load`, once."""

    def load(self, spec: ModelSpec) -> Model:
        module_name, _, class_name = runtime_options(spec, PythonOptions).handler.partition(":")
        folder = Path(spec.folder)
        where = f"{spec.name}/{spec.version}/{module_name}.py"
        module = _import(folder / f"{module_name}.py", f"forebay_model_{spec.name}_{spec.version}", where)
        handler_class = getattr(module, class_name, None)
        if not inspect.isclass(handler_class):
            raise Misconfigured(
                f"{where}: has no class {class_name!r}; write one, or name another with [python] handler = "
                f'"{module_name}:YourClass"'
            )
        model = PythonModel(_make(handler_class, where), where)
        model.load(folder)
        return model


class PythonModel(Model):
    """Calls the handler as its signatures ask, which are read once."""

    def __init__(self, handler: Any, where: str) -> None:
        self._handler = handler
        self._where = where
        self._takes_contexts = _arguments(handler, "predict", where, least=1, most=2) == 2

    def load(self, folder: Path) -> None:
        """Raises whatever the handler's `load` raises."""
        if hasattr(self._handler, "load"):
            takes_folder = _arguments(self._handler, "load", self._where, least=0, most=1) == 1
            self._handler.load(*([folder] if takes_folder else []))

    def predict(self, inputs: Any, contexts: list[ItemContext]) -> list[Any]:
        outputs = self._handler.predict(inputs, contexts) if self._takes_contexts else self._handler.predict(inputs)
        if not isinstance(outputs, (list, tuple)):
            raise ModelFailed(
                f"the handler returned {type(outputs).__name__}, not a list with one output per input",
                code="bad_output",
            )
        if len(outputs) != len(inputs):
            raise ModelFailed(
                f"the handler gave {len(outputs)} outputs for {len(inputs)} inputs", code="wrong_output_count"
            )
        return [_failure(output) if isinstance(output, Exception) else output for output in outputs]

    def describe(self) -> Mapping[str, Any]:
        return {"framework": f"python {sys.version.partition(' ')[0]}", "handler": type(self._handler).__qualname__}

    def close(self) -> None:
        close: Callable[[], object] | None = getattr(self._handler, "close", None)
        if close is not None:
            close()


def _import(path: Path, name: str, where: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise Misconfigured(f"{where}: is missing; put the handler there, or name its file with [python] handler")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and others look their own module up
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # files beside it; last, so that they hide no installed package
    try:
        spec.loader.exec_module(module)
    except ImportError as error:
        raise Misconfigured(f"{where}: {error}; install it where the service runs") from error
    except Exception as error:  # the file is the operator's code and may raise anything
        raise Misconfigured(f"{where}: importing it raised {type(error).__name__}: {error}") from error
    return module


def _make(handler_class: type, where: str) -> Any:
    try:
        inspect.signature(handler_class).bind()
    except TypeError as error:
        raise Misconfigured(
            f"{where}: {handler_class.__name__}() takes arguments ({error}); prepare in load(self, folder) instead"
        ) from error
    return handler_class()


def _arguments(handler: Any, name: str, where: str, *, least: int, most: int) -> int:
    """How many positional arguments to give: as many as it takes, up to `most`."""
    method = getattr(handler, name, None)
    if not callable(method):
        raise Misconfigured(f"{where}: the handler has no method {name}(self, inputs); write one")
    if inspect.iscoroutinefunction(method) or inspect.isgeneratorfunction(method) or inspect.isasyncgenfunction(method):
        raise Misconfigured(f"{where}: {name} must be a plain function that returns; it runs in a process of its own")
    signature = inspect.signature(method)
    for count in range(most, least - 1, -1):
        try:
            signature.bind(*[None] * count)
        except TypeError:  # it does not take so many
            continue
        return count
    shapes = {
        "predict": "predict(self, inputs) or predict(self, inputs, contexts)",
        "load": "load(self) or load(self, folder)",
    }
    raise Misconfigured(f"{where}: {name}{signature} cannot be called; write {shapes[name]}")


def _failure(error: Exception) -> ModelFailed:
    """What a caller may see. A text that the handler did not write for callers stays in the log."""
    if isinstance(error, ModelFailed):
        return error
    log.warning("model.input_failed", exc_info=error)
    return ModelFailed(f"the model failed for this input with {type(error).__name__}", code="model_error")
