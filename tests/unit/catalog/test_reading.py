"""What the catalog makes of a models folder that is as it should be."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.unit.catalog.conftest import Write
from tests.unit.runtimes import onnx_writer

from forebay.catalog import read_models
from forebay.core.batching import BatchPolicy
from forebay.core.errors import Misconfigured, NotFound
from forebay.core.model import ModelLimits, TensorSpec
from forebay.core.retry import RetryPolicy

EXAMPLES = Path(__file__).parents[3] / "models"


def test_the_example_models_are_described_without_a_problem() -> None:
    catalog = read_models(EXAMPLES)
    assert catalog.problems == {}
    image, text = catalog.resolve("image_classification"), catalog.resolve("text_classification")
    assert (image.task, image.runtime, image.version, len(image.labels)) == ("image-classification", "onnx", "1", 1000)
    assert image.labels[285] == "Egyptian cat"
    assert image.inputs == (TensorSpec("pixel_values", "FP32", ("batch", 3, 224, 224)),)
    assert image.outputs == (TensorSpec("logits", "FP32", ("batch", 1000)),)
    assert (text.task, text.labels, text.task_options) == (
        "text-classification",
        ("NEGATIVE", "POSITIVE"),
        {"max_length": 256},
    )


def test_reading_the_catalog_imports_no_numeric_library() -> None:
    code = (
        "import sys; from forebay.catalog import read_models; from forebay.tasks import TASKS, task\n"
        f"read_models({str(EXAMPLES)!r}); [task(name) for name in TASKS]\n"
        "sys.exit(bool({'numpy', 'PIL', 'onnxruntime', 'tokenizers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_key_of_model_toml_arrives(write: Write, tensor_file: bytes) -> None:
    manifest = """
        task = "tensor"
        runtime = "onnx"
        description = "Twice."
        labels = ["a", "b"]
        replicas = 2
        [batching]
        max_batch_size = 8
        max_queue_delay_s = 0.01
        [limits]
        run_timeout_s = 5
        start_within_s = 60
        memory_bytes = "1.5GiB"
        max_pixels = 1000
        max_queue_length = { low = 5 }
        [retry]
        max_attempts = 5
        first_delay_s = 2
        factor = 3
        max_delay_s = 60
        [onnx]
        file = "twice.onnx"
        threads = 3
        [options]
        batched = false
    """
    spec = read_models(write({"twice/model.toml": manifest, "twice/1/twice.onnx": tensor_file})).resolve("twice")
    assert (spec.description, spec.labels, spec.replicas) == ("Twice.", ("a", "b"), 2)
    assert spec.batching == BatchPolicy(max_batch_size=8, max_queue_delay_s=0.01)
    assert spec.limits == ModelLimits(
        run_timeout_s=5, start_within_s=60, memory_bytes=3 * 2**29, max_pixels=1000, max_queue_length={"low": 5}
    )
    assert spec.retry == RetryPolicy(max_attempts=5, first_delay_s=2, factor=3, max_delay_s=60)
    assert spec.options == {"file": "twice.onnx", "threads": 3}
    assert spec.task_options == {"batched": False}
    assert Path(spec.folder).is_absolute()


def test_a_bare_onnx_file_is_a_tensor_model_with_the_defaults(write: Write, tensor_file: bytes) -> None:
    spec = read_models(write({"twice/model.onnx": tensor_file})).resolve("twice")
    assert (spec.task, spec.runtime, spec.version) == ("tensor", "onnx", "1")
    assert (spec.batching, spec.limits, spec.retry) == (BatchPolicy(), ModelLimits(), RetryPolicy())
    assert spec.inputs == (TensorSpec("x", "FP32", ("batch", 3)),)


def test_the_default_version_is_the_highest_number(write: Write, tensor_file: bytes) -> None:
    versions = ["1", "2", "10", "9"]
    catalog = read_models(write({f"twice/{version}/model.onnx": tensor_file for version in versions}))
    assert list(catalog.specs["twice"]) == ["1", "2", "9", "10"]
    assert catalog.resolve("twice").version == catalog.default_version("twice") == "10"
    assert catalog.resolve("twice", "2").version == "2"


def test_only_the_default_version_of_a_model_is_served(write: Write, tensor_file: bytes) -> None:
    files = {f"{name}/{version}/model.onnx": tensor_file for name in "ab" for version in (2, 10)}
    catalog = read_models(write(files | {"c/1/readme": "no model"}))
    served = catalog.served()
    assert {name: list(versions) for name, versions in served.specs.items()} == {"a": ["10"], "b": ["10"]}
    assert served.problems == catalog.problems


def test_resolving_what_is_not_there_tells_what_is(write: Write, tensor_file: bytes) -> None:
    catalog = read_models(
        write({"b/1/model.onnx": tensor_file, "a/1/model.onnx": tensor_file, "c/1/readme": "no model"})
    )
    with pytest.raises(NotFound, match="the models are a, b") as unknown:
        catalog.resolve("nope")
    assert (unknown.value.code, unknown.value.known) == ("unknown_model", ("a", "b"))
    with pytest.raises(NotFound, match="not served in version '7', only in 1") as version:
        catalog.resolve("a", "7")
    assert (version.value.code, version.value.known) == ("unknown_version", ("1",))
    with pytest.raises(NotFound, match="'c' cannot be served: c/1: holds no model; put ") as misdescribed:
        catalog.resolve("c")
    assert misdescribed.value.code == "model_misdescribed"


@pytest.mark.parametrize(
    ("files", "task"),
    [
        (
            {"config.json": {"architectures": ["BertForSequenceClassification"]}, "tokenizer.json": {}},
            "text-classification",
        ),
        (
            {"config.json": {"architectures": ["ViTForImageClassification"]}, "preprocessor_config.json": {}},
            "image-classification",
        ),
        (
            {"config.json": {"architectures": ["Net"], "task": "image-classification"}, "preprocessor_config.json": {}},
            "image-classification",
        ),
        (
            {"config.json": {"id2label": {"0": "a", "1": "b"}}, "preprocessor_config.json": {}},
            "image-classification",
        ),
        ({"config.json": {"architectures": ["BertModel"]}, "tokenizer.json": {}}, "feature-extraction"),
        ({"config.json": {}, "modules.json": [], "tokenizer.json": {}}, "feature-extraction"),
        (
            {"README.md": "---\nlicense: mit\npipeline_tag: text-classification\n---\n# It", "tokenizer.json": {}},
            "text-classification",
        ),
    ],
)
def test_the_task_is_told_from_a_hugging_face_folder(write: Write, files: dict[str, object], task: str) -> None:
    weights = {"onnx/model.onnx": onnx_writer.doubling(["batch", 2])}
    catalog = read_models(write({f"m/{name}": content for name, content in {**files, **weights}.items()}))
    assert catalog.problems == {}
    spec = catalog.resolve("m")
    assert (spec.task, spec.options) == (task, {"file": "onnx/model.onnx"})


def test_limits_of_the_text_come_from_tokenizer_and_config(write: Write, tensor_file: bytes) -> None:
    roberta = {
        "architectures": ["RobertaModel"],
        "model_type": "roberta",
        "max_position_embeddings": 514,
        "pad_token_id": 1,
    }
    files = {"config.json": roberta, "tokenizer.json": {}, "model.onnx": tensor_file}
    catalog = read_models(
        write(
            {f"a/{name}": content for name, content in files.items()}
            | {f"b/{name}": content for name, content in files.items()}
            | {"b/tokenizer_config.json": {"model_max_length": 128}}
        )
    )
    assert catalog.resolve("a").task_options == {"max_length": 512}
    assert catalog.resolve("b").task_options == {"max_length": 128}


def test_precision_chooses_among_the_files_of_a_hugging_face_folder(write: Write, tensor_file: bytes) -> None:
    catalog = read_models(
        write(
            {
                "m/model.toml": '[onnx]\nprecision = "q8"',
                "m/1/onnx/model.onnx": tensor_file,
                "m/1/onnx/model_quantized.onnx": tensor_file,
            }
        )
    )
    assert catalog.resolve("m").options["file"] == "onnx/model_quantized.onnx"


def test_labels_come_from_a_named_file_and_keep_their_punctuation(write: Write, tensor_file: bytes) -> None:
    catalog = read_models(
        write(
            {"m/model.toml": 'labels = "names.txt"', "m/names.txt": "a, b\n\nc\u2028d\n", "m/1/model.onnx": tensor_file}
        )
    )
    assert catalog.resolve("m").labels == ("a, b", "", "c\u2028d")


def test_a_python_model_is_served_once_it_is_named_as_trusted(write: Write) -> None:
    folder = write({"code/1/model.py": "raise SystemExit('the catalog runs no code')"})
    assert read_models(folder, {"code"}).resolve("code").task == "json"
    untrusted = read_models(folder, {"other"})
    assert untrusted.specs == {}
    assert untrusted.problems["code"] == (
        "code/1: untrusted_model: it would run Python code of its own; if you trust that code, start with "
        "FOREBAY_TRUSTED_MODELS=code",
    )


def test_a_model_that_lacks_nothing_but_trust_says_so(write: Write) -> None:
    folder = write({"code/1/model.py": "", "code/2/model.py": "", "both/1/model.py": "", "both/2/readme": "no model"})
    catalog = read_models(folder)
    with pytest.raises(NotFound, match="FOREBAY_TRUSTED_MODELS=code") as untrusted:
        catalog.resolve("code")
    assert untrusted.value.code == "model_untrusted"
    with pytest.raises(NotFound) as misdescribed:
        catalog.resolve("both")
    assert misdescribed.value.code == "model_misdescribed"


def test_trust_is_given_by_name_only(models: Path) -> None:
    with pytest.raises(Misconfigured, match="name each model"):
        read_models(models, {"*"})


def test_a_folder_that_is_not_there_says_which_setting_names_it(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="FOREBAY_MODELS_DIR"):
        read_models(tmp_path / "nowhere")


def test_an_empty_folder_is_an_empty_catalog(models: Path) -> None:
    (models / "README.md").write_text("Models go here.")
    (models / ".git").mkdir()
    assert read_models(models).names() == ()
