"""Python handlers: how they are found and called, and how one input fails without the others."""

from __future__ import annotations

import textwrap
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from forebay.core.errors import Misconfigured, ModelFailed
from forebay.core.model import ModelSpec
from forebay.ports.runtime import ItemContext
from forebay.runtimes import RUNTIMES, python, runtime

ECHO = """
    class Model:
        def predict(self, inputs):
            return list(inputs)
"""


def load(folder: Path, code: str, *, file: str = "model.py", **options: Any) -> Any:
    (folder / file).write_text(textwrap.dedent(code))
    spec = ModelSpec(name="m", version="1", task="json", runtime="python", folder=str(folder), options=options)
    return runtime("python").load(spec)


def contexts(count: int) -> list[ItemContext]:
    return [
        ItemContext(job_id=f"job-{index}", attempt=1, parameters={"n": index}, canceled=Event())
        for index in range(count)
    ]


def test_a_handler_gets_the_inputs_and_returns_the_outputs(tmp_path: Path) -> None:
    model = load(tmp_path, ECHO)
    assert model.predict([1, "a", None], contexts(3)) == [1, "a", None]
    assert model.describe()["handler"] == "Model"
    model.close()


def test_the_example_in_the_documentation_works(tmp_path: Path) -> None:
    example = "\n".join(line for line in (python.__doc__ or "").splitlines() if line.startswith("    "))
    (tmp_path / "mark.txt").write_text("!\n")
    model = load(tmp_path, example)
    answered, failed = model.predict(["hello", 3], contexts(2))
    assert answered == {"text": "HELLO!"}
    assert (failed.code, failed.message) == ("model_error", "the model failed for this input with ValueError")
    assert len([line for line in example.splitlines() if line.strip() and "#" not in line[:6]]) <= 15


def test_a_handler_may_ask_for_the_contexts(tmp_path: Path) -> None:
    code = """
        class Model:
            def predict(self, inputs, contexts):
                return [f"{one.job_id} {one.attempt} {one.parameters['n']}" for one in contexts]
    """
    assert load(tmp_path, code).predict(["a", "b"], contexts(2)) == ["job-0 1 0", "job-1 1 1"]


@pytest.mark.parametrize(
    ("load_method", "expected"),
    [
        ("def load(self): self.at = 'loaded'", "loaded"),
        ("def load(self, folder): self.at = folder.name", "FOLDER"),
        ("def load(self, folder=None): self.at = folder.name", "FOLDER"),
        ("def load(self, *args): self.at = args[0].name", "FOLDER"),
        ("at = 'never'", "never"),
    ],
)
def test_load_is_called_once_as_its_signature_asks(tmp_path: Path, load_method: str, expected: str) -> None:
    code = (
        f"class Model:\n    {load_method}\n    def predict(self, inputs):\n        return [self.at for _ in inputs]\n"
    )
    assert load(tmp_path, code).predict([0], contexts(1)) == [expected.replace("FOLDER", tmp_path.name)]


def test_a_handler_may_live_in_another_file_and_import_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "forebay_test_neighbour.py").write_text("WORD = 'hi'")
    code = """
        from dataclasses import dataclass
        import forebay_test_neighbour

        @dataclass
        class Greeter:
            word: str = forebay_test_neighbour.WORD

            def predict(self, inputs):
                return tuple(f"{self.word} {one}" for one in inputs)
    """
    model = load(tmp_path, code, file="greet.py", handler="greet:Greeter")
    assert model.predict(["you"], contexts(1)) == ["hi you"]


def test_a_handler_is_closed_where_it_asks_for_it(tmp_path: Path) -> None:
    code = """
        from pathlib import Path

        class Model:
            def load(self, folder): self.folder = folder
            def predict(self, inputs): return inputs
            def close(self): (self.folder / "closed").touch()
    """
    load(tmp_path, code).close()
    assert (tmp_path / "closed").exists()


def test_one_input_can_fail_alone(tmp_path: Path) -> None:
    code = """
        from forebay.core.errors import ModelFailed

        class Model:
            def predict(self, inputs):
                return ["fine", ModelFailed("send more", code="too_short"), KeyError("a secret")]
    """
    fine, told, other = load(tmp_path, code).predict([1, 2, 3], contexts(3))
    assert fine == "fine"
    assert (told.code, told.message) == ("too_short", "send more")
    assert isinstance(other, ModelFailed)
    assert "secret" not in other.message


def test_what_a_handler_raises_passes_through(tmp_path: Path) -> None:
    model = load(tmp_path, "class Model:\n    def predict(self, inputs):\n        raise KeyError('x')\n")
    with pytest.raises(KeyError, match="x"):
        model.predict([1], contexts(1))


@pytest.mark.parametrize(
    ("returned", "code"),
    [
        ("inputs[1:]", "wrong_output_count"),
        ("inputs * 2", "wrong_output_count"),
        ("None", "bad_output"),
        ("'ab'", "bad_output"),
    ],
)
def test_outputs_that_are_not_one_per_input_fail_the_batch(tmp_path: Path, returned: str, code: str) -> None:
    model = load(tmp_path, f"class Model:\n    def predict(self, inputs):\n        return {returned}\n")
    with pytest.raises(ModelFailed) as failed:
        model.predict(["a", "b"], contexts(2))
    assert failed.value.code == code


@pytest.mark.parametrize(
    ("code", "fragment"),
    [
        ("import no_such_package_anywhere", "m/1/model.py: No module named 'no_such_package_anywhere'; install it"),
        ("1 / 0", "m/1/model.py: importing it raised ZeroDivisionError"),
        ("def", "m/1/model.py: importing it raised SyntaxError"),
        ("class Other: pass", "m/1/model.py: has no class 'Model'; write one, or name another with [python] handler"),
        ("Model = 3", "has no class 'Model'"),
        ("class Model: pass", "the handler has no method predict(self, inputs); write one"),
        ("class Model:\n    def predict(self): pass", "predict() cannot be called; write predict(self, inputs)"),
        ("class Model:\n    def predict(self, a, b, c): pass", "predict(a, b, c) cannot be called; write predict(self"),
        ("class Model:\n    async def predict(self, inputs): pass", "predict must be a plain function"),
        ("class Model:\n    def predict(self, inputs): yield 1", "predict must be a plain function"),
        (
            "class Model:\n    def __init__(self, x): pass\n    def predict(self, inputs): pass",
            "Model() takes arguments",
        ),
        (
            "class Model:\n    def load(self, a, b): pass\n    def predict(self, inputs): pass",
            "load(a, b) cannot be called; write load(self) or load(self, folder)",
        ),
    ],
)
def test_a_handler_that_cannot_be_used_is_told(tmp_path: Path, code: str, fragment: str) -> None:
    with pytest.raises(Misconfigured) as told:
        load(tmp_path, code)
    assert fragment in told.value.message


def test_a_handler_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"m/1/other\.py: is missing"):
        load(tmp_path, ECHO, handler="other:Model")


def test_an_unknown_runtime_is_told_with_the_known_ones() -> None:
    with pytest.raises(Misconfigured, match=", ".join(RUNTIMES)):
        runtime("tensorflow")
