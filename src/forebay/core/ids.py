"""Ids of jobs and of batches: `<uuidv7>-<16 hex>`. Any replica knows, without asking a store, an id that we issued to
this tenant.

The tag is the first 8 bytes of HMAC-SHA256 over tenant and UUID. 64 bits suffice: a guess must be made online, against
one tenant, and what it finds is only that a job may exist.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Sequence

from forebay.core.errors import InvalidRequest, Misconfigured

TAG_HEX = 16
SECRET_MIN_BYTES = 16
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ISSUED, _CHOSEN = "", "\0chosen"
"""By whom a UUID was made: what one signs says nothing of the other."""

DERIVED_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}-[0-9a-f]{16}")


class IdMint:
    """Issues and recognises job ids. The first secret signs, all verify, so that secrets can be rotated.

    `random_bytes(n)` must be unpredictable in production; a simulation hands in a seeded one. `realm`: of what the ids
    are, "" for jobs; an id of one realm is none in another.
    Raises Misconfigured for no secret or one under 16 bytes.
    """

    def __init__(self, secrets: Sequence[bytes], random_bytes: Callable[[int], bytes], realm: str = "") -> None:
        if not secrets or any(len(secret) < SECRET_MIN_BYTES for secret in secrets):
            raise Misconfigured(f"secrets: at least one is needed, each of {SECRET_MIN_BYTES} bytes or more")
        self._secrets = tuple(secrets)
        self._random_bytes = random_bytes
        self._realm = realm

    def of_realm(self, realm: str) -> IdMint:
        """One for ids of something else."""
        return IdMint(self._secrets, self._random_bytes, realm)

    def issue(self, tenant: str, now: float) -> str:
        """A new id for `tenant`, ordered by `now` to the millisecond."""
        uuid = _uuid7(int(now * 1000), self._random_bytes(10))
        return f"{uuid}-{_tag(self._secrets[0], tenant, uuid, _ISSUED + self._realm)}"

    def of_uuid(self, tenant: str, uuid: str) -> str:
        """The id of a job under a UUID of the caller's choice. Raises InvalidRequest for what is no UUID in its usual
        form (RFC 9562 section 4), in either case of its letters."""
        uuid = uuid.lower()
        if not is_uuid(uuid):
            raise InvalidRequest(f"{uuid[:80]!r} is no UUID such as 8c9d2f1e-5b0a-4c3d-9e8f-0a1b2c3d4e5f")
        return f"{uuid}-{_tag(self._secrets[0], tenant, uuid, _CHOSEN + self._realm)}"

    def chosen(self, tenant: str, job_id: str) -> bool:
        """Whether it is the id of a UUID of this tenant's choice. It says nothing of whether there is such a job."""
        return self._signed(tenant, job_id, _CHOSEN)

    def issued_at(self, tenant: str, job_id: str) -> float | None:
        """When this id was issued to `tenant`, in seconds since the epoch; None if it was not issued by us to them."""
        if not self._signed(tenant, job_id, _ISSUED):
            return None
        return int(job_id[0:8] + job_id[9:13], 16) / 1000

    def _signed(self, tenant: str, job_id: str, how: str) -> bool:
        uuid, tag = job_id[:36], job_id[37:]
        if len(job_id) != 37 + TAG_HEX or job_id[36] != "-" or not job_id.isascii():
            return False
        how += self._realm
        return any(hmac.compare_digest(_tag(secret, tenant, uuid, how), tag) for secret in self._secrets)


def derived_id(lines: Sequence[str]) -> str:
    """`<uuidv8>-<16 hex>`, the shape of the ids that we issue, which are of version 7: the two can never be the same.
    Of the SHA-256 of these lines (RFC 9562 section 5.8), so that a shell script can compute it too."""
    return _uuid8("".join(f"{line}\n" for line in lines))


def uuid_of_retry(tenant: str, job_id: str, number: int) -> str:
    """Of the job that does `job_id` again for the `number`th time: always the same."""
    return _uuid8(f"retry\0{tenant}\0{job_id}\0{number}")[:36]


def is_derived(job_id: str) -> bool:
    """Whether it has the shape of a derived id, which nobody signed: of a record of a producer that is not ours
    (`core/foreign.py`) or of a line of a batch. It says nothing of whether there is such a job."""
    return DERIVED_ID.fullmatch(job_id) is not None


def is_uuid(text: str) -> bool:
    return UUID.fullmatch(text) is not None


def _uuid8(text: str) -> str:
    """Of the text's SHA-256 (RFC 9562 section 5.8), with the next 8 bytes behind it."""
    octets = bytearray(hashlib.sha256(text.encode()).digest())
    octets[6] = 0x80 | (octets[6] & 0x0F)
    octets[8] = 0x80 | (octets[8] & 0x3F)
    digits = octets.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:32]}-{digits[32:48]}"


def _tag(secret: bytes, tenant: str, uuid: str, how: str) -> str:
    return hmac.digest(secret, f"{tenant}\0{uuid}{how}".encode(), "sha256")[: TAG_HEX // 2].hex()


def _uuid7(unix_ms: int, random: bytes) -> str:
    """RFC 9562 section 5.7: 48 bits of milliseconds, version 7, 74 random bits around the variant."""
    head = unix_ms.to_bytes(6, "big").hex()
    tail = bytearray(random)
    tail[0] = 0x70 | (tail[0] & 0x0F)
    tail[2] = 0x80 | (tail[2] & 0x3F)
    body = tail.hex()
    return f"{head[:8]}-{head[8:]}-{body[:4]}-{body[4:8]}-{body[8:]}"
