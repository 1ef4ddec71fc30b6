"""Blobs as objects, `<prefix>/<tenant>/<job>/<sha256>`. Through obstore: S3, Google Cloud Storage, Azure."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from hashlib import sha256
from typing import TypeVar
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    GenericError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from obstore.store import AzureStore, GCSStore, S3Store, from_url

from forebay.core import crash
from forebay.core.errors import BlobDamaged, Misconfigured, Unavailable
from forebay.core.payload import BlobRef, blob_ref, check_blob_name, may_have_blobs
from forebay.ports.blobs import BlobStore

SCHEMES = ("s3", "gs", "az")

TIMEOUT_S = 20.0
"""50 MB at 3 MB/s. A worker that waits for it waits beside its model, not in its place."""

CONNECT_TIMEOUT_S = 2.0
BACKOFFS_S = (0.05, 0.2)
"""Before the second and the third try. Whoever called waits in longer steps, or tells its caller to."""

RETRY_AFTER_S = 5.0

PROBE = "default/forebay-check/" + "0" * 64
"""No job has this id."""

# A missing bucket answers 404 as a missing blob does; the codes in the answers of S3 and Google, and of Azure.
NO_BUCKET = "there is no such bucket"
_NO_BUCKET_CODES = ("NoSuchBucket", "ContainerNotFound")
_SAID = 600

T = TypeVar("T")
Store = S3Store | GCSStore | AzureStore


class S3Blobs(BlobStore):
    """A blob survives what the object store survives, once `put` has returned.

    A blob is written with the condition that its name is free, so none is ever written over, unless what has its name
    is of another size. For a server of S3 that does not know conditions, set AWS_CONDITIONAL_PUT=disabled: the same
    name then is written again with the same bytes.
    The credentials need to list the bucket: without that right, S3 answers 403 instead of 404 for a missing blob, which
    then counts as away and not as damaged.
    """

    def __init__(self, url: str, *, options: Mapping[str, str] | None = None, timeout_s: float = TIMEOUT_S) -> None:
        """`url` is `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`; the prefix may be absent.

        Endpoint, region and credentials come from the variables of each cloud's own tools (AWS_ENDPOINT_URL,
        AWS_REGION, AWS_ACCESS_KEY_ID, GOOGLE_SERVICE_ACCOUNT, AZURE_STORAGE_ACCOUNT_NAME, ...), else from the machine's
        role; `options`, by obstore's names (`endpoint`, `region`, `access_key_id`, `secret_access_key`,
        `virtual_hosted_style_request`, ...), go first. An endpoint may be http://. S3 is addressed path-style unless
        told otherwise. `timeout_s` bounds each call, its retries included; a place that accepts no connection is given
        up after about 6 s, one that refuses it at once.

        Does no I/O. Raises Misconfigured for a URL or an option that cannot be used.
        """
        self._url = url
        self._timeout_s = timeout_s
        self._store = _open(url, options or {}, timeout_s)

    async def check(self) -> None:
        """For the start: raises Misconfigured unless the bucket is there and can be read, Unavailable if it is away."""
        try:
            await self._repeat(lambda: obstore.get_async(self._store, PROBE))
        except FileNotFoundError as exc:
            if _names_no_bucket(exc):
                raise Misconfigured(f"blobs: {self._url}: {NO_BUCKET}") from exc
        except (PermissionDeniedError, UnauthenticatedError) as exc:
            rights = "read, write, delete and list"
            raise Misconfigured(f"blobs: {self._url}: these credentials may not {rights}: {_said(exc)}") from exc
        except (BaseError, OSError) as exc:
            raise Unavailable(f"blobs: {self._url}: {_said(exc)}", retry_after_s=RETRY_AFTER_S) from exc

    async def put(self, tenant: str, job_id: str, data: bytes) -> BlobRef:
        ref = await asyncio.to_thread(blob_ref, tenant, job_id, data)
        crash.reach("s3.before_put")
        await self._do("written", ref, lambda: self._write(ref, data))
        crash.reach("s3.after_put")
        return ref

    async def get(self, ref: BlobRef) -> bytes:
        check_blob_name(ref)
        crash.reach("s3.before_get")
        try:
            data = await self._do("read", ref, lambda: self._read(ref))
        except FileNotFoundError as exc:
            raise BlobDamaged(f"the blob {ref.name} is missing") from exc
        crash.reach("s3.after_get")
        if await asyncio.to_thread(_digest, data) != ref.sha256:
            raise BlobDamaged(f"the blob {ref.name} does not match its digest ({len(data)} bytes)")
        return data

    async def delete_job(self, tenant: str, job_id: str) -> None:
        if not may_have_blobs(tenant, job_id):
            return
        try:
            await self._repeat(lambda: self._delete_below(f"{tenant}/{job_id}/"))
        except (BaseError, OSError) as exc:
            reason = f"the blobs of {job_id} cannot be deleted at {self._url}: {_said(exc)}"
            raise Unavailable(reason, retry_after_s=RETRY_AFTER_S) from exc

    async def _delete_below(self, prefix: str) -> None:
        async for page in obstore.list(self._store, prefix=prefix):
            for found in page:
                with contextlib.suppress(FileNotFoundError):  # another scheduler was first
                    await obstore.delete_async(self._store, found["path"])

    async def _write(self, ref: BlobRef, data: bytes) -> None:
        try:
            await obstore.put_async(self._store, ref.name, data, mode="create")
            return
        except AlreadyExistsError:
            # By an earlier call or by the try whose answer was lost; but S3 answers so beside a delete, too.
            if await self._is_whole(ref):
                return
        except NotImplementedError:  # AWS_CONDITIONAL_PUT=disabled
            pass
        await obstore.put_async(self._store, ref.name, data, mode="overwrite", use_multipart=False)

    async def _is_whole(self, ref: BlobRef) -> bool:
        try:
            found = await obstore.head_async(self._store, ref.name)
        except FileNotFoundError:
            return False
        return found["size"] == ref.size_bytes

    async def _read(self, ref: BlobRef) -> bytes:
        found = await obstore.get_async(self._store, ref.name)
        size_bytes = found.meta["size"]
        if size_bytes != ref.size_bytes:  # nothing of it is fetched: it may be of any size
            raise BlobDamaged(f"the blob {ref.name} has {size_bytes} bytes, {ref.size_bytes} expected")
        return bytes(await found.bytes_async())

    async def _do(self, what: str, ref: BlobRef, call: Callable[[], Awaitable[T]]) -> T:
        """`_repeat`. FileNotFoundError of a blob passes, all else that obstore raises becomes Unavailable."""
        try:
            return await self._repeat(call)
        except (BaseError, OSError) as exc:
            why = _said(exc)
            if isinstance(exc, FileNotFoundError):
                if not _names_no_bucket(exc):
                    raise
                why = NO_BUCKET
            raise Unavailable(
                f"the blob {ref.name} ({ref.size_bytes} bytes) cannot be {what} at {self._url}: {why}",
                retry_after_s=RETRY_AFTER_S,
            ) from exc

    async def _repeat(self, call: Callable[[], Awaitable[T]]) -> T:
        """Every call may be repeated: obstore's own retries leave out a write on a condition whose connection broke."""
        async with asyncio.timeout(self._timeout_s):
            for backoff_s in BACKOFFS_S:
                try:
                    return await call()
                except GenericError:  # the network, or a 5xx
                    await asyncio.sleep(backoff_s)
            return await call()


def _open(url: str, options: Mapping[str, str], timeout_s: float) -> Store:
    scheme = urlsplit(url).scheme
    if scheme not in SCHEMES:
        raise Misconfigured(f"blobs: {url}: begin with one of {', '.join(f'{known}://' for known in SCHEMES)}")
    # One blob at a time is deleted, so the bulk request, which not every server of S3 knows, gains nothing.
    own = {"disable_bulk_delete": "true"} if scheme == "s3" else {}
    try:
        store = from_url(
            url,
            config={**own, **options},  # type: ignore[call-overload]  # which keys it may have depends on the scheme
            client_options={
                "allow_http": True,  # the endpoint says whether; every default is https
                "connect_timeout": timedelta(seconds=CONNECT_TIMEOUT_S),
                "timeout": timedelta(seconds=timeout_s),
            },
            retry_config={"max_retries": 0},
        )
    except (BaseError, ValueError, TypeError) as exc:
        raise Misconfigured(f"blobs: {url}: {_said(exc)}") from exc
    assert isinstance(store, S3Store | GCSStore | AzureStore), store
    return store


def _digest(data: bytes) -> str:
    return sha256(data).hexdigest()


def _names_no_bucket(error: FileNotFoundError) -> bool:
    return any(code in str(error) for code in _NO_BUCKET_CODES)


def _said(error: Exception) -> str:
    """What a person needs of the error's text: obstore adds its insides, and the server its page."""
    text = str(error).partition("\n\nDebug source")[0]
    return text[:_SAID] or f"no answer in time ({type(error).__name__})"
