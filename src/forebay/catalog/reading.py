"""The models directory, read: one ModelSpec per version, or a line that says what to change."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import structlog

from forebay.catalog.artifacts import is_version, runtime_of
from forebay.catalog.catalog import Catalog
from forebay.catalog.folders import link_problems, model_folders, name_problem, names_by_file, version_folders
from forebay.catalog.hugging_face import options_of, read_config, task_of
from forebay.catalog.labels import read_labels
from forebay.catalog.manifest import MANIFEST, Manifest, read_manifest
from forebay.catalog.names import MODEL_NAME, did_you_mean
from forebay.catalog.options import NEEDED_FILES, RUNTIME_OPTIONS, RUNTIMES_OF_TASK, TASK_OPTIONS, as_mapping
from forebay.catalog.runtime_facts import describe_runtime
from forebay.catalog.tables import read_table
from forebay.core.errors import Misconfigured
from forebay.core.model import ModelSpec

log = structlog.get_logger()


def read_models(folder: str | Path, trusted_models: Collection[str] = ()) -> Catalog:
    """Describe every model below `folder`. `trusted_models` are those whose own code may run.

    A model that cannot be described becomes problems of the catalog, each with file, key and remedy; the others go on.
    Raises Misconfigured if the folder itself cannot be read or a trusted name is none.
    """
    root = Path(folder)
    wrong = [name for name in trusted_models if not MODEL_NAME.fullmatch(name)]
    if wrong:
        raise Misconfigured(
            "trusted_models takes names of models, separated by commas",
            mistakes=[f"{name!r} is not the name of a model; name each model whose code you trust" for name in wrong],
        )
    try:
        root = root.resolve(strict=True)
        models, inside = model_folders(root), names_by_file(root)
    except OSError as error:
        raise Misconfigured(
            f"the models folder {str(folder)!r} cannot be read ({error.strerror}); create it or set FOREBAY_MODELS_DIR"
        ) from error
    specs: dict[str, Mapping[str, ModelSpec]] = {}
    problems: dict[str, tuple[str, ...]] = {}
    untrusted: set[str] = set()
    for model in models:
        found = _Model(root, model, model.name in trusted_models)
        try:
            versions = found.read(inside)
        except Exception as error:  # whatever it is, the other models shall be served
            log.exception("catalog.model_failed", model=model.name)
            found.problems.append(f"{model.name}: cannot be described ({type(error).__name__}); the log has the reason")
            versions = {}
        if versions:
            specs[model.name] = versions
        if found.problems:
            problems[model.name] = tuple(found.problems)
            if len(found.problems) == found.untrusted_versions:
                untrusted.add(model.name)
    return Catalog(specs=specs, problems=problems, untrusted=frozenset(untrusted))


class _Model:
    """One model's folder while it is read; gathers problems on the way."""

    def __init__(self, root: Path, folder: Path, trusted: bool) -> None:
        self._root = root
        self._folder = folder
        self._trusted = trusted
        self.problems: list[str] = []
        self.untrusted_versions = 0

    def read(self, inside: dict[tuple[int, int], int]) -> dict[str, ModelSpec]:
        """Its versions that can be served."""
        name = self._folder.name
        unfit = name_problem(name)
        if unfit:
            self.problems.append(f"{name}: {unfit}")
            return {}
        self.problems += link_problems(self._root, self._folder, inside)
        if self.problems:
            return {}
        manifest = self._manifest()
        if manifest is None:
            return {}
        folders = {one.name: one for one in version_folders(self._folder)}
        if not folders and is_version(self._folder):
            folders = {"1": self._folder}
        if not folders:
            self._say(self._folder, f"holds no version; put the model's files into {name}/1/")
        described = {version: self._version(version, folder, manifest) for version, folder in folders.items()}
        return {version: spec for version, spec in described.items() if spec is not None}

    def _manifest(self) -> Manifest | None:
        path = self._folder / MANIFEST
        mistakes: list[str] = []
        manifest = read_manifest(path, mistakes)
        if manifest.task is not None and manifest.task not in TASK_OPTIONS:
            hint = did_you_mean(manifest.task, TASK_OPTIONS)
            mistakes.append(f"task: there is no {manifest.task!r}{hint}; choose one of {', '.join(TASK_OPTIONS)}")
        if manifest.runtime is not None and manifest.runtime not in RUNTIME_OPTIONS:
            hint = did_you_mean(manifest.runtime, RUNTIME_OPTIONS)
            mistakes.append(
                f"runtime: there is no {manifest.runtime!r}{hint}; choose one of {', '.join(RUNTIME_OPTIONS)}"
            )
        for mistake in mistakes:
            self._say(path, mistake)
        return None if mistakes else manifest

    def _version(self, version: str, folder: Path, manifest: Manifest) -> ModelSpec | None:
        before = len(self.problems)
        runtime = manifest.runtime or self._runtime(folder)
        if runtime == "python" and not self._trusted:
            self._say(
                folder,
                "untrusted_model: it would run Python code of its own; if you trust that code, start with "
                f"FOREBAY_TRUSTED_MODELS={self._folder.name}",
            )
            self.untrusted_versions += 1
            return None
        config = self._config(folder)
        task = manifest.task or self._task(folder, runtime, config)
        if not runtime or not task or not self._fit(task, runtime):
            return None
        facts, runtime_options = describe_runtime(self._folder, folder, runtime, manifest, self._say)
        task_options = self._task_options(folder, task, manifest, config)
        labels = read_labels(self._folder, folder, manifest.labels, config, self._say)
        for name in NEEDED_FILES.get(task, ()):
            if not (folder / name).is_file():
                self._say(folder / name, f"is missing; {task} needs it, copy it from where the model comes from")
        if len(self.problems) > before:
            return None
        return ModelSpec(
            name=self._folder.name,
            version=version,
            task=task,
            runtime=runtime,
            folder=str(folder),
            description=manifest.description,
            batching=manifest.batch_policy(),
            limits=manifest.model_limits(),
            retry=manifest.retry_policy(),
            replicas=manifest.replicas,
            labels=labels,
            inputs=facts.inputs,
            outputs=facts.outputs,
            options=runtime_options,
            task_options=task_options,
        )

    def _runtime(self, folder: Path) -> str:
        runtime, reason = runtime_of(folder)
        if reason:
            self._say(folder, reason)
        return runtime

    def _config(self, folder: Path) -> Mapping[str, Any]:
        mistakes: list[str] = []
        config = read_config(folder / "config.json", mistakes)
        for mistake in mistakes:
            self._say(folder, mistake)
        return config

    def _task(self, folder: Path, runtime: str, config: Mapping[str, Any]) -> str:
        if runtime == "python":
            return "json"
        if not runtime:
            return ""
        task, reason = task_of(folder, config)
        if reason:
            fitting = [name for name, runtimes in RUNTIMES_OF_TASK.items() if runtime in runtimes]
            self._say(folder, f'{reason}; write task = "..." into {self._folder.name}/{MANIFEST}: {", ".join(fitting)}')
        return task

    def _fit(self, task: str, runtime: str) -> bool:
        if runtime in RUNTIMES_OF_TASK[task]:
            return True
        fitting = [name for name, runtimes in RUNTIMES_OF_TASK.items() if runtime in runtimes]
        self._say(
            self._folder / MANIFEST,
            f"task: {task!r} does not go with runtime {runtime!r}, which serves {', '.join(fitting)}; change either",
        )
        return False

    def _task_options(self, folder: Path, task: str, manifest: Manifest, config: Mapping[str, Any]) -> dict[str, Any]:
        mistakes: list[str] = []
        implied = options_of(task, folder, config, mistakes)
        for mistake in mistakes:
            self._say(folder, mistake)
        mistakes = []
        options = as_mapping(read_table(implied | manifest.options, TASK_OPTIONS[task], mistakes, "options"))
        for mistake in mistakes:
            self._say(self._folder / MANIFEST, mistake)
        return options

    def _say(self, path: Path, message: str) -> None:
        self.problems.append(f"{path.relative_to(self._root)}: {message}")
