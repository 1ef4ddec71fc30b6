"""What a version's own file says, and the runtime's options."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from forebay.catalog.artifacts import onnx_file
from forebay.catalog.manifest import MANIFEST, Manifest
from forebay.catalog.onnx_file import NotOnnx, OnnxFacts, read_onnx_facts
from forebay.catalog.options import RUNTIME_OPTIONS, PythonOptions, as_mapping
from forebay.catalog.tables import read_table

NOTHING = OnnxFacts(inputs=(), outputs=(), external=())
Say = Callable[[Path, str], None]


def describe_runtime(
    model: Path, version: Path, runtime: str, manifest: Manifest, say: Say
) -> tuple[OnnxFacts, dict[str, Any]]:
    """The tensors that the model's file declares, and the runtime's options, the file to load among them."""
    tables = {"onnx": manifest.onnx, "python": manifest.python}
    mistakes = [
        f"{other}: the runtime is {runtime!r}, so [{other}] has no meaning; remove it"
        for other, table in tables.items()
        if other != runtime and table
    ]
    options = read_table(tables[runtime], RUNTIME_OPTIONS[runtime], mistakes, runtime)
    for mistake in mistakes:
        say(model / MANIFEST, mistake)
    found = as_mapping(options)
    if isinstance(options, PythonOptions):
        handler = version / f"{options.handler.partition(':')[0]}.py"
        if not handler.is_file():
            say(handler, "is missing; put the handler there, or name its file with [python] handler")
        else:
            _check_python(handler, say)
        return NOTHING, found
    file, mistake = onnx_file(version, found.get("file"), found.get("precision"))
    if mistake:
        say(version, mistake)
        return NOTHING, found
    return _onnx_facts(version / file, say), found | {"file": file}


def _check_python(path: Path, say: Say) -> None:
    """Compiled, never run: what it does when it runs is the runner's business."""
    try:
        source = path.read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the runner compiles it again and then they are shown
            compile(source, path.name, "exec", dont_inherit=True)
    except OSError as error:
        say(path, f"cannot be read ({error.strerror}); give the service's user the right to read it")
    except SyntaxError as error:  # of a file that is not in its encoding too, then without a line
        where = f"line {error.lineno}: " if error.lineno else ""
        say(path, f"{where}is not Python ({error.msg}); correct it")
    except (ValueError, RecursionError, MemoryError) as error:  # NUL bytes; nested deeper than the compiler goes
        say(path, f"is not Python ({str(error) or type(error).__name__}); correct it")


def _onnx_facts(path: Path, say: Say) -> OnnxFacts:
    try:
        facts = read_onnx_facts(path)
    except NotOnnx as error:
        say(path, str(error))
        return NOTHING
    except OSError as error:
        say(path, f"cannot be read ({error.strerror}); give the service's user the right to read it")
        return NOTHING
    for name in facts.external:
        weights = path.parent / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            say(path, f"takes weights from {name!r}, outside its folder; export it with its weights beside it")
        elif not weights.is_file():
            say(weights, f"is missing; {path.name} takes its weights from it, copy it as well")
    return facts
