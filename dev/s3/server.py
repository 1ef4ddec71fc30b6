"""S3Proxy on the loopback interface, with one bucket; objects are files below `folder`."""

from __future__ import annotations

import contextlib
import http.client
from collections.abc import Sequence
from pathlib import Path

from dev.kafka.install import Distribution
from dev.kafka.java_process import JavaProcess
from dev.kafka.ports import HOST, free_port

HERE = Path(__file__).resolve().parent
S3PROXY = Distribution(HERE / "pom.xml", f"-Dlogback.configurationFile={HERE / 'logback.xml'}", "S3Proxy")

HEAP_MIB = 256
ANSWER_WITHIN_S = 0.5
BUCKET = "forebay"
ACCESS_KEY_ID = "test-key-id"
SECRET_ACCESS_KEY = "test-secret-key"


class S3Server(JavaProcess):
    """Ready means that it answers S3. Requests must be signed with the key above; path-style addresses only."""

    def __init__(self, folder: Path) -> None:
        super().__init__(S3PROXY, folder, HEAP_MIB)
        self._port = free_port()
        self._objects = folder / "objects"
        self.endpoint = f"http://{HOST}:{self._port}"

    @property
    def options(self) -> dict[str, str]:
        """How obstore reaches it."""
        return {
            "endpoint": self.endpoint,
            "region": "us-east-1",
            "access_key_id": ACCESS_KEY_ID,
            "secret_access_key": SECRET_ACCESS_KEY,
        }

    def _arguments(self) -> Sequence[str]:
        (self._objects / BUCKET).mkdir(parents=True, exist_ok=True)
        settings = {
            "s3proxy.endpoint": self.endpoint,
            "s3proxy.authorization": "aws-v2-or-v4",
            "s3proxy.identity": ACCESS_KEY_ID,
            "s3proxy.credential": SECRET_ACCESS_KEY,
            "jclouds.provider": "filesystem-nio2",
            "jclouds.filesystem.basedir": str(self._objects),
        }
        properties = self.folder / "s3proxy.properties"
        properties.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        return ["org.gaul.s3proxy.Main", "--properties", str(properties)]

    def _is_ready(self) -> bool:
        """Whether it refuses us, who did not sign, in the words of S3."""
        connection = http.client.HTTPConnection(HOST, self._port, timeout=ANSWER_WITHIN_S)
        # An error: it does not answer yet.
        with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/")
            return b"<Code>AccessDenied</Code>" in connection.getresponse().read()
        return False
