"""Each mistake is told with its file, its key and what to write instead; and costs only its own model."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.catalog.conftest import Write
from tests.unit.runtimes import onnx_writer

from forebay.catalog import read_models, reading
from forebay.catalog.manifest import Manifest, byte_count, read_manifest
from forebay.catalog.onnx_file import NotOnnx, read_onnx_facts

MANIFESTS = [
    ("max_batch_size = 4", ["max_batch_size: the file's top level has no such key"]),
    ("[batching]\nmax_batch_sise = 4", ["batching.max_batch_sise:", "did you mean 'max_batch_size'?"]),
    ("[batching]\nmax_batch_size = 0", ["batching.max_batch_size: found 0; write a whole number from 1"]),
    ('[batching]\nmax_batch_size = "8"', ["batching.max_batch_size: found '8'; write a whole number"]),
    ("[batching]\nmax_batch_size = true", ["batching.max_batch_size: found True; write a whole number"]),
    ("[batching]\nmax_queue_delay_s = -1", ["batching.max_queue_delay_s: found -1; write seconds"]),
    ("[batching]\nmax_queue_delay_s = nan", ["batching.max_queue_delay_s: found nan; write seconds"]),
    ("[limits]\nrun_timeout_s = inf", ["limits.run_timeout_s: found inf; write seconds"]),
    ('[limits]\nmemory_bytes = "lots"', ["limits.memory_bytes: found 'lots'; write bytes", "4GiB"]),
    ('[limits]\nmemory_bytes = "99999999TB"', ["limits.memory_bytes: found '99999999TB'; write bytes", "2**62"]),
    ('[limits]\nmemory_bytes = "0B"', ["limits.memory_bytes: found '0B'; write bytes"]),
    ("[limits]\nmemory_bytes = 12345678901234567890123", ["limits.memory_bytes: found 1234567890", "write bytes"]),
    (f'[limits]\nmemory_bytes = "1{"0" * 400}"', ["limits.memory_bytes: found '1000", "write bytes"]),
    (
        "[limits]\nmax_queue_length = { urgent = 3 }",
        [
            "limits.max_queue_length: found {'urgent': 3}; write a whole number of at least 1, or one for each lane "
            "such as { high = 100, low = 100000 }"
        ],
    ),
    ("[limits]\nmax_pixels = 0", ["limits.max_pixels: found 0; write a whole number of at least 1"]),
    ("[retry]\nmax_attempts = 0", ["retry.max_attempts: found 0; write a whole number from 1 to 100"]),
    ("batching = 3", ["batching: found 3; write a table, [batching]"]),
    ("replicas = 0", ["replicas: found 0; write a whole number from 1"]),
    ("labels = 3", ["labels: found 3; write a list of names"]),
    ('labels = "gone.txt"', ["labels: there is no 'gone.txt' beside the model; put it there"]),
    ('labels = "../../secret"', ["labels: '../../secret' is not the name of a file"]),
    ('task = "tensr"', ["task: there is no 'tensr'; did you mean 'tensor'?; choose one of image-classification"]),
    ('runtime = "onx"', ["runtime: there is no 'onx'; did you mean 'onnx'?; choose one of onnx, python"]),
    ('task = "json"', ["task: 'json' does not go with runtime 'onnx', which serves image-classification"]),
    (
        '[onnx]\nfile = "gone.onnx"',
        ["m/1: onnx.file: there is no 'gone.onnx'; choose one with [onnx] file: model.onnx"],
    ),
    ('[onnx]\nfile = "../1/model.onnx"', ["onnx.file: '../1/model.onnx' leaves the version's folder"]),
    ('[onnx]\nprecision = "int3"', ["onnx.precision: found 'int3'; write one of", "did you mean 'int8'?"]),
    ('[onnx]\nprecision = "fp16"', ["onnx.precision: no file for 'fp16'; choose one with [onnx] file: model.onnx"]),
    ("[onnx]\nthreads = 0", ["onnx.threads: found 0; write a whole number of at least 1"]),
    ('[onnx]\nproviders = "CPU"', ["onnx.providers: found 'CPU'; write a list of names"]),
    ('[python]\nhandler = "model:Model"', ["python: the runtime is 'onnx', so [python] has no meaning; remove it"]),
    ("[options]\nbatchd = true", ["options.batchd:", "did you mean 'batched'?"]),
    ("task = ", ["is not TOML"]),
    (f"x = {'[' * 5000}{']' * 5000}", ["is nested too deep"]),
]


@pytest.mark.parametrize(("manifest", "fragments"), MANIFESTS, ids=[manifest[:60] for manifest, _ in MANIFESTS])
def test_a_mistake_in_model_toml_names_key_and_remedy(
    write: Write, tensor_file: bytes, manifest: str, fragments: list[str]
) -> None:
    catalog = read_models(
        write({"m/model.toml": manifest, "m/1/model.onnx": tensor_file, "fine/1/model.onnx": tensor_file})
    )
    assert catalog.names() == ("fine",)
    (problem,) = catalog.problems["m"]
    assert problem.startswith(("m/model.toml: ", "m/1: "))
    for fragment in fragments:
        assert fragment in problem


def test_all_mistakes_of_a_file_are_told_at_once(write: Write, tensor_file: bytes) -> None:
    manifest = 'tsk = "tensor"\nreplicas = "two"\n[batching]\nmax_batch_size = 0\nsize = 3\n[retry]\nfactor = 0.5'
    problems = read_models(write({"m/model.toml": manifest, "m/1/model.onnx": tensor_file})).problems["m"]
    assert [problem.split(": ")[1] for problem in problems] == [
        "tsk",
        "replicas",
        "batching.max_batch_size",
        "batching.size",
        "retry.factor",
    ]


MANIFEST_OF_HANDLER = 'task = "json"\nruntime = "python"\n[python]\nhandler = "handler:Model"\n'

FOLDERS: list[tuple[dict[str, object], list[str]]] = [
    ({}, ["m: holds no version; put the model's files into m/1/"]),
    ({"1/notes.txt": "x"}, ["m/1: holds no model; put model.onnx"]),
    ({"1/model.onnx": b""}, ["m/1/model.onnx: is empty; copy the model again"]),
    ({"1/model.onnx": b"version https://git-lfs.github.com/spec/v1\noid"}, ["Git LFS pointer", "git lfs pull"]),
    ({"1/model.onnx": b"PK\x03\x04 a zip"}, ["m/1/model.onnx: is not an ONNX file"]),
    (
        {"1/a.onnx": b"x", "1/b.onnx": b"x"},
        ["m/1: onnx.file: holds no model.onnx; choose one with [onnx] file: a.onnx, b.onnx"],
    ),
    ({"1/model.onnx": b"x", "1/model.py": ""}, ["m/1: holds an ONNX file and model.py; choose with runtime"]),
    ({"1/config.json": "{", "1/model.onnx": onnx_writer.doubling([1])}, ["config.json: is not JSON; copy it again"]),
    (
        {"1/config.json": {"architectures": ["GPT2LMHeadModel2"]}, "1/model.onnx": onnx_writer.doubling([1])},
        ["its task cannot be told", "says GPT2LMHeadModel2", 'write task = "..." into m/model.toml: image-'],
    ),
    (
        {"model.toml": 'task = "text-classification"', "1/model.onnx": onnx_writer.doubling(["batch", 2])},
        ["m/1/tokenizer.json: is missing; text-classification needs it"],
    ),
    (
        {"model.toml": 'runtime = "onnx"\ntask = "tensor"', "1/model.py": ""},
        ["m/1: onnx.file: holds no model.onnx; put model.onnx here"],
    ),
    (
        {
            "1/config.json": {"problem_type": "guessing", "task": "image-classification"},
            "1/preprocessor_config.json": {},
            "1/model.onnx": onnx_writer.doubling(["batch", 2]),
        },
        ["options.problem_type: found 'guessing'; write one of"],
    ),
]


@pytest.mark.parametrize(("files", "fragments"), FOLDERS, ids=[fragments[0] for _, fragments in FOLDERS])
def test_a_mistake_in_a_folder_names_file_and_remedy(
    write: Write, models: Path, tensor_file: bytes, files: dict[str, object], fragments: list[str]
) -> None:
    (models / "m").mkdir()
    write({f"m/{name}": content for name, content in files.items()} | {"fine/1/model.onnx": tensor_file})
    catalog = read_models(models)
    assert catalog.names() == ("fine",)
    (problem,) = catalog.problems["m"]
    for fragment in fragments:
        assert fragment in problem


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        (b"class Model:\n    def predict(self)\n        return 1\n", "line 2: is not Python (expected ':')"),
        (b"x = 1\n  y = 2\n", "line 2: is not Python (unexpected indent)"),
        (b"name = '\xff'\n", "is not Python ((unicode error)"),
        (b"# coding: klingon\n", "is not Python (unknown encoding: klingon)"),
        (b"x = 1\0", "is not Python (source code string cannot contain null bytes)"),
        (b"-" * 100_000 + b"1", "is not Python ("),
    ],
)
def test_a_handler_that_does_not_compile_is_told_with_its_line(write: Write, source: bytes, problem: str) -> None:
    catalog = read_models(write({"m/1/model.py": source}), {"m"})
    assert catalog.specs == {}
    (found,) = catalog.problems["m"]
    assert found.startswith("m/1/model.py: ")
    assert problem in found
    assert found.endswith("; correct it")


def test_a_handler_is_compiled_and_never_run(write: Write, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    source = f"import pathlib\npathlib.Path({str(ran)!r}).touch()\nassert '\\d' is 1\n"
    assert read_models(write({"m/1/handler.py": source, "m/model.toml": MANIFEST_OF_HANDLER}), {"m"}).problems == {}
    assert not ran.exists()


def test_a_model_card_that_cannot_be_read_costs_its_model_only(
    write: Write, tensor_file: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(path: Path, *arguments: Any) -> Any:
        if path.name == "README.md":
            raise PermissionError(errno.EACCES, "Permission denied")
        return whole(path, *arguments)

    models = write({"m/1/README.md": "", "m/1/model.onnx": tensor_file, "fine/1/model.onnx": tensor_file})
    whole = Path.open
    monkeypatch.setattr(Path, "open", denied)
    catalog = read_models(models)
    assert catalog.names() == ("fine",)
    assert "README.md cannot be read (Permission denied); write task" in catalog.problems["m"][0]


def test_what_nobody_foresaw_in_one_model_costs_the_others_nothing(
    write: Write, tensor_file: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unforeseen(path: Path, mistakes: list[str]) -> Manifest:
        if path.parent.name == "m":
            raise ZeroDivisionError
        return read_manifest(path, mistakes)

    monkeypatch.setattr(reading, "read_manifest", unforeseen)
    with structlog.testing.capture_logs() as logs:
        catalog = read_models(write({"m/1/model.onnx": tensor_file, "fine/1/model.onnx": tensor_file}))
    assert catalog.names() == ("fine",)
    assert catalog.problems["m"] == ("m: cannot be described (ZeroDivisionError); the log has the reason",)
    assert [(one["event"], one["exc_info"]) for one in logs] == [("catalog.model_failed", True)]


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/passwd", "weights.bin"])
def test_weights_in_another_file_must_lie_beside_the_model(write: Write, location: str) -> None:
    file = onnx_writer.model(
        [onnx_writer.node("Add", ["x", "w"], ["y"])],
        [onnx_writer.tensor_info("x", onnx_writer.FLOAT, ["batch", 2])],
        [onnx_writer.tensor_info("y", onnx_writer.FLOAT, ["batch", 2])],
        [onnx_writer.external_weights("w", [2], location)],
    )
    (problem,) = read_models(write({"m/1/model.onnx": file})).problems["m"]
    assert ("is missing" if location == "weights.bin" else "outside its folder") in problem
    assert location in problem


@pytest.mark.parametrize("name", ["Upper", "_x", "with space", "ü", "a" * 65])
def test_a_folder_whose_name_is_no_name_is_told(write: Write, tensor_file: bytes, name: str) -> None:
    catalog = read_models(write({f"{name}/1/model.onnx": tensor_file}))
    assert catalog.specs == {}
    assert "rename the folder" in catalog.problems[name][0]


def test_one_bad_version_does_not_hide_a_good_one(write: Write, tensor_file: bytes) -> None:
    catalog = read_models(write({"m/1/model.onnx": tensor_file, "m/2/model.onnx": b"not it"}))
    assert catalog.resolve("m").version == "1"
    assert "m/2/model.onnx" in catalog.problems["m"][0]


def test_a_link_out_of_the_models_folder_is_refused(write: Write, tmp_path: Path, tensor_file: bytes) -> None:
    (tmp_path / "elsewhere.onnx").write_bytes(tensor_file)
    models = write({"fine/1/model.onnx": tensor_file, "m/1/readme": ""})
    (models / "m/1/model.onnx").symlink_to(tmp_path / "elsewhere.onnx")
    catalog = read_models(models)
    assert catalog.names() == ("fine",)
    assert catalog.problems["m"] == (
        "m/1/model.onnx: is a link that leaves the models folder; put a copy of the file here instead",
    )


def test_a_link_within_the_models_folder_is_followed(write: Write, tensor_file: bytes) -> None:
    models = write({"fine/1/model.onnx": tensor_file, "m/1/readme": ""})
    (models / "m/1/model.onnx").symlink_to(models / "fine/1/model.onnx")
    assert read_models(models).names() == ("fine", "m")


def test_a_version_that_is_a_link_out_is_refused(write: Write, tmp_path: Path, tensor_file: bytes) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "model.onnx").write_bytes(tensor_file)
    models = write({"m/readme": ""})
    (models / "m/1").symlink_to(tmp_path / "there")
    assert "leaves the models folder" in read_models(models).problems["m"][0]


def test_a_model_that_is_a_link_out_is_refused(models: Path, tmp_path: Path, tensor_file: bytes) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "model.onnx").write_bytes(tensor_file)
    (models / "m").symlink_to(tmp_path / "there")
    catalog = read_models(models)
    assert catalog.specs == {}
    assert "leaves the models folder" in catalog.problems["m"][0]


def test_links_are_judged_where_they_end(write: Write, tmp_path: Path, tensor_file: bytes) -> None:
    """As Kubernetes mounts a volume: the files are links into a hidden folder. Nothing hides behind such a link."""
    (tmp_path / "elsewhere.onnx").write_bytes(tensor_file)
    models = write({"fine/..data/model.onnx": tensor_file, "m/.stash/readme": ""})
    (models / "fine/1").symlink_to(models / "fine/..data")
    (models / "m/.stash/model.onnx").symlink_to(tmp_path / "elsewhere.onnx")
    (models / "m/1").symlink_to(models / "m/.stash")
    (models / "m/.stash/loop").symlink_to(models / "m")
    catalog = read_models(models)
    assert catalog.names() == ("fine",)
    assert "m/1/model.onnx: is a link that leaves" in catalog.problems["m"][0]


def test_a_hard_link_out_of_the_models_folder_is_refused(write: Write, tmp_path: Path, tensor_file: bytes) -> None:
    models = write({"m/1/model.onnx": tensor_file})
    os.link(models / "m/1/model.onnx", tmp_path / "another-name")
    assert "other names (hard links) outside" in read_models(models).problems["m"][0]


def test_a_hard_link_within_the_models_folder_is_fine(write: Write, tensor_file: bytes) -> None:
    models = write({"m/1/model.onnx": tensor_file, "m/2/readme": ""})
    os.link(models / "m/1/model.onnx", models / "m/2/model.onnx")
    assert read_models(models).default_version("m") == "2"


def test_what_is_neither_file_nor_folder_is_refused(write: Write, tensor_file: bytes) -> None:
    models = write({"m/1/model.onnx": tensor_file})
    os.mkfifo(models / "m/1/pipe")
    assert read_models(models).problems["m"] == ("m/1/pipe: is neither a file nor a folder; remove it",)


@settings(deadline=None)
@given(st.binary(max_size=300) | st.integers(0, 200).map(lambda cut: onnx_writer.doubling(["batch", 3])[:cut]))
def test_any_bytes_are_an_onnx_file_or_said_to_be_none(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / "model.onnx"
    path.write_bytes(data)
    with contextlib.suppress(NotOnnx):  # the one error that is allowed
        assert isinstance(read_onnx_facts(path).inputs, tuple)


@pytest.mark.parametrize(
    ("text", "count"), [("1", 1), ("512MB", 512 * 10**6), ("4GiB", 4 * 2**30), ("1.5 KiB", 1536), ("2TB", 2 * 10**12)]
)
def test_sizes_are_read_with_their_units(text: str, count: int) -> None:
    assert byte_count(text) == count
