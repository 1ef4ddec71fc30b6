"""An archive of loaded classes, made once per installation: a start then costs a third less processor time.

Source: JEP 350, dynamic class data sharing archives. An archive that does not fit the Java at hand is ignored by it.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from pathlib import Path

from dev.kafka.broker import Broker
from dev.kafka.install import KAFKA, install
from dev.kafka.java_process import QUICK, BrokerFailed, archive_in

STOP_WITHIN_S = 60.0


def install_with_archive() -> None:
    """`install(KAFKA)`, then a broker that starts, stops and leaves the archive of the classes that it had loaded.

    Raises KafkaUnavailable. A broker that fails here is no error: the next one tells.
    """
    archive = archive_in(install(KAFKA))
    if archive.exists():
        return
    unfinished = archive.with_suffix(f".{os.getpid()}")
    # Whatever fails here: the archive only saves time.
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(BrokerFailed, subprocess.TimeoutExpired):
        with Broker(Path(folder), java_options=[*QUICK, f"-XX:ArchiveClassesAtExit={unfinished}"]) as broker:
            broker.stop(STOP_WITHIN_S)
        if unfinished.exists():
            unfinished.rename(archive)
