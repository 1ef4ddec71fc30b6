"""The models folder of a storm: the oracle of the tests, with the limits that the storm wants."""

from __future__ import annotations

import shutil
from pathlib import Path

from msgspec import Struct

ORACLE = Path(__file__).resolve().parents[1] / "tests" / "models" / "oracle" / "1" / "model.py"


class Oracle(Struct, frozen=True, kw_only=True):
    """`max_attempts`: a storm may catch the same job again and again, which is the storm's fault and not the job's."""

    name: str = "oracle"
    max_attempts: int = 50
    max_batch_size: int = 8
    run_timeout_s: float = 60.0
    cancel_grace_s: float = 5.0


def write_models(folder: Path, oracle: Oracle = Oracle()) -> Path:  # noqa: B008 - a frozen value
    """Returns the models folder, in which the oracle is the only model."""
    version = folder / oracle.name / "1"
    version.mkdir(parents=True)
    shutil.copy(ORACLE, version)
    (folder / oracle.name / "model.toml").write_text(
        f"""\
task = "json"
runtime = "python"

[batching]
max_batch_size = {oracle.max_batch_size}

[limits]
run_timeout_s = {oracle.run_timeout_s}
cancel_grace_s = {oracle.cancel_grace_s}

[retry]
max_attempts = {oracle.max_attempts}
"""
    )
    return folder
