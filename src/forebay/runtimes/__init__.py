"""One module per framework, imported in the runner process only; none knows another."""

from __future__ import annotations

from forebay.core.errors import Misconfigured
from forebay.ports.runtime import Runtime

RUNTIMES = ("onnx", "python")


def runtime(name: str) -> Runtime:
    """The runtime of that name; its framework is imported now. Raises Misconfigured for a name not in RUNTIMES."""
    if name == "onnx":
        from forebay.runtimes.onnx import OnnxRuntime

        return OnnxRuntime()
    if name == "python":
        from forebay.runtimes.python import PythonRuntime

        return PythonRuntime()
    raise Misconfigured(f"there is no runtime {name!r}; choose one of {', '.join(RUNTIMES)}")
