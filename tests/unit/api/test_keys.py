"""Who is let in: a matrix of every route of the OpenAPI document with every kind of key."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from msgspec.structs import replace
from tests.unit.api.conftest import NOW, Api

from forebay.adapters.memory import MemoryApiKeys
from forebay.api.gate import KNOWN_FOR_S, STALE_S
from forebay.core.api_key import ApiKey, Scope, new_key, of_secret, parse
from forebay.core.delivery import delivery_id
from forebay.core.errors import InvalidRequest, Unavailable
from forebay.core.event import EventKind, JobError, JobEvent, JobRequest
from forebay.core.job_batch import BatchEvent, BatchEventKind
from forebay.core.payload import JSON, Payload
from forebay.core.webhook import WebhookTarget
from forebay.core.webhook_endpoint import HeldSecret, WebhookEndpoint, disabled
from forebay.core.wire import encode_request

MakeApi = Callable[..., Api]
DOCUMENT = Api().app.openapi()
OPERATIONS = sorted((method, path) for path, methods in DOCUMENT["paths"].items() for method in methods)
"""All there are: an operation that somebody adds is in the matrix, and fails there until it is what the tables say."""

PUBLIC = {"/livez", "/readyz", "/health"}
TAKES = {
    ("post", "/inference"): Scope.SUBMIT,
    ("post", "/v1/jobs"): Scope.SUBMIT,
    ("put", "/v1/jobs/{job_id}"): Scope.SUBMIT,
    ("post", "/v1/models/{model}/jobs"): Scope.SUBMIT,
    ("post", "/v1/jobs/{job_id}/cancel"): Scope.CANCEL,
    ("post", "/v1/jobs/{job_id}/retry"): Scope.SUBMIT,
    ("post", "/v1/dead-letters/redrive"): Scope.SUBMIT,
    ("post", "/v1/dead-letters/{job_id}/redrive"): Scope.SUBMIT,
    ("post", "/v1/batches"): Scope.SUBMIT,
    ("put", "/v1/batches/{batch_id}"): Scope.SUBMIT,
    ("post", "/v1/batches/{batch_id}/cancel"): Scope.CANCEL,
    ("delete", "/v1/jobs/{job_id}"): Scope.CANCEL,
    ("post", "/v1/webhook-endpoints"): Scope.ADMIN,
    ("get", "/v1/webhook-endpoints"): Scope.ADMIN,
    ("get", "/v1/webhook-endpoints/{endpoint_id}"): Scope.ADMIN,
    ("patch", "/v1/webhook-endpoints/{endpoint_id}"): Scope.ADMIN,
    ("delete", "/v1/webhook-endpoints/{endpoint_id}"): Scope.ADMIN,
    ("get", "/v1/webhook-endpoints/{endpoint_id}/secret"): Scope.ADMIN,
    ("post", "/v1/webhook-endpoints/{endpoint_id}/rotate-secret"): Scope.ADMIN,
    ("get", "/v1/webhook-secret"): Scope.ADMIN,
    ("post", "/v1/webhook-secret/rotate"): Scope.ADMIN,
    ("post", "/v1/jobs/{job_id}/deliveries/{delivery_id}/redeliver"): Scope.SUBMIT,
    ("post", "/v1/deliveries/redeliver"): Scope.SUBMIT,
}
"""What changes something says here what it takes; what reads takes READ, unless it says so here."""

OF_NO_TENANT = {"model"}
"""Path parameters that name what all tenants see. Whatever else a path names is one tenant's."""

OF_A_TENANT = [(method, path) for method, path in OPERATIONS if set(re.findall(r"{(\w+)}", path)) - OF_NO_TENANT]

ALL = tuple(Scope)
SECRET = "what the job came to"
TARGET = WebhookTarget(url="https://hooks.example/forebay")


class Issuer:
    """Makes keys, each with other bytes."""

    def __init__(self, keys: MemoryApiKeys) -> None:
        self._keys = keys
        self._made = 0

    async def __call__(self, tenant: str = "acme", scopes: Any = ALL, **changes: Any) -> tuple[ApiKey, str]:
        self._made += 1
        key, token = new_key(
            tenant=tenant,
            name=f"key {self._made}",
            scopes=scopes,
            now=NOW,
            random_bytes=lambda count: hashlib.sha256(f"{self._made}".encode()).digest()[:count],
        )
        key = replace(key, **changes)
        await self._keys.put(key)
        return key, token


@pytest.fixture
async def issue(api: Api) -> Issuer:
    return Issuer(api.keys)


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


async def dead_letter(api: Api, tenant: str) -> str:
    """A job of this tenant that has failed."""
    job_id = api.mint.issue(tenant, api.clock.now)
    payload = Payload(media_type=JSON, data=b"1")
    request = JobRequest(tenant=tenant, job_id=job_id, model="echo", accepted_at=api.clock.now, input=payload)
    place = str(len(api.published))
    api.log.append([encode_request(request)])
    error = JobError(code="e", message=SECRET)
    ended = JobEvent(tenant=tenant, job_id=job_id, kind=EventKind.FAILED, at=api.clock.now + 1, attempt=1, error=error)
    await api.project(replace(request, place=place), ended)
    return job_id


async def own_job(api: Api, tenant: str) -> str:
    """A job of this tenant that has succeeded."""
    job_id = api.mint.issue(tenant, api.clock.now)
    payload = Payload(media_type=JSON, data=f'"{SECRET}"'.encode())
    await api.project(
        JobRequest(
            tenant=tenant,
            job_id=job_id,
            model="echo",
            accepted_at=api.clock.now,
            input=payload,
            webhooks=(TARGET,),
        ),
        JobEvent(
            tenant=tenant, job_id=job_id, kind=EventKind.SUCCEEDED, at=api.clock.now + 1, attempt=1, output=payload
        ),
    )
    return job_id


async def own_batch(api: Api, tenant: str) -> str:
    """A batch of this tenant that is complete."""
    batch_id = api.mint.of_realm("\0batch").issue(tenant, api.clock.now)
    facts: Any = {"tenant": tenant, "batch_id": batch_id, "at": api.clock.now}
    await api.project(BatchEvent(kind=BatchEventKind.OPENED, **facts), BatchEvent(kind=BatchEventKind.SEALED, **facts))
    return batch_id


ENDPOINT_ID = "ep_0123456789abcdef01234567"


async def own_endpoint(api: Api, tenant: str, endpoint_id: str = ENDPOINT_ID) -> str:
    """A webhook endpoint of this tenant."""
    await api.endpoints.add(
        WebhookEndpoint(
            id=endpoint_id,
            tenant=tenant,
            url="https://receiver.example",
            description=SECRET,
            secrets=(HeldSecret(secret=f"whsec_{SECRET}"),),
            created_at=api.clock.now,
        )
    )
    return endpoint_id


async def disabled_endpoint(api: Api, tenant: str) -> str:
    endpoint_id = await own_endpoint(api, tenant, ENDPOINT_ID[:-1] + "8")
    await api.endpoints.change(tenant, endpoint_id, lambda one: disabled(one, api.clock.now, SECRET))
    return endpoint_id


def body_of(method: str, path: str) -> dict[str, Any]:
    """The document's example for the model `echo`, or the only one that there is, as arguments of a request."""
    for media_type, content in DOCUMENT["paths"][path][method].get("requestBody", {}).get("content", {}).items():
        if "example" in content:
            return {"content": content["example"], "headers": {"content-type": media_type}}
        examples = content.get("examples", {})
        if "echo" in examples or len(examples) == 1:
            value = examples.get("echo", next(iter(examples.values())))["value"]
            return (
                {"json": value} if media_type == JSON else {"content": value, "headers": {"content-type": media_type}}
            )
    return {}


async def call(api: Api, method: str, path: str, job_id: str, headers: Mapping[str, str]) -> Any:
    uuid = "8c9d2f1e-5b0a-4c3d-9e8f-0a1b2c3d4e5f"
    names = {"job_id": uuid if method == "put" else job_id, "request_id": job_id, "model": "echo"}
    names["delivery_id"] = delivery_id("acme", job_id, "completed", TARGET)
    names["batch_id"] = uuid if method == "put" else await own_batch(api, "acme")
    names["endpoint_id"] = await own_endpoint(api, "acme")
    body = body_of(method, path)
    headers = {**headers, **body.pop("headers", {})}
    return await api.http.request(method.upper(), path.format(**names), headers=headers, **body)


KINDS = ("none", "malformed", "unknown", "expired", "revoked", "wrong scope", "other tenant", "right")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("method", "path"), OPERATIONS)
async def test_every_route_asks_every_kind_of_key_the_right_thing(
    api: Api, issue: Issuer, method: str, path: str, kind: str
) -> None:
    takes = TAKES.get((method, path), Scope.READ) if method == "get" else TAKES[method, path]
    _, right = await issue("acme", [takes])
    job_id = await (dead_letter if "dead-letters" in path or "retry" in path else own_job)(api, "acme")
    headers = {
        "none": {},
        "malformed": bearer("fby_nothing"),
        "unknown": bearer(right[:-1] + ("A" if right[-1] != "A" else "B")),
        "expired": bearer((await issue(expires_at=NOW - 1))[1]),
        "revoked": bearer((await issue(revoked_at=NOW - 1))[1]),
        "wrong scope": bearer((await issue(scopes=[scope for scope in Scope if scope is not takes]))[1]),
        "other tenant": bearer((await issue("rival"))[1]),
        "right": bearer(right),
    }[kind]
    before = len(api.published)
    answer = await call(api, method, path, job_id, headers)
    if path in PUBLIC:
        assert answer.status_code == 200
        return
    expected = {
        "none": (401, "no_key"),
        "malformed": (401, "invalid_key"),
        "unknown": (401, "invalid_key"),
        "expired": (401, "expired_key"),
        "revoked": (401, "revoked_key"),
        "wrong scope": (403, "scope_missing"),
    }.get(kind)
    if expected is not None:
        assert (answer.status_code, answer.json()["code"]) == expected
        assert ("www-authenticate" in answer.headers) == (expected[0] == 401)
        assert len(api.published) == before
        assert SECRET not in answer.text
    elif kind == "other tenant" and (method, path) in OF_A_TENANT and method != "put":
        assert (answer.status_code, answer.json()["code"][:8]) == (404, "unknown_")
        assert len(api.published) == before
    else:
        assert answer.is_success, answer.text
        if kind == "other tenant":
            assert job_id not in answer.text
            assert SECRET not in answer.text


async def running_job(api: Api, tenant: str) -> str:
    """A job of this tenant of which nobody knows the end."""
    job_id = api.mint.issue(tenant, api.clock.now + 1)
    facts: Any = {"tenant": tenant, "job_id": job_id}
    payload = Payload(media_type=JSON, data=b"1")
    await api.project(
        JobRequest(model="echo", accepted_at=api.clock.now, input=payload, **facts),
        JobEvent(kind=EventKind.STARTED, at=api.clock.now + 1, attempt=1, **facts),
    )
    return job_id


async def ids_of(api: Api, method: str, path: str, acme: str) -> list[str]:
    """What may stand in this path: ids of things that this key's tenant has, in each state, then others of nothing."""
    batch = path.startswith("/v1/batches")
    if method == "put":
        used, unused = "8c9d2f1e-5b0a-4c3d-9e8f-0a1b2c3d4e5f", "1d2c3b4e-5b0a-4c3d-9e8f-0a1b2c3d4e5f"
        answer = await request(api, method, path, used, acme)
        assert answer.is_success, answer.text
        return [used, unused]
    if "{endpoint_id}" in path:
        there = [await own_endpoint(api, "acme"), await disabled_endpoint(api, "acme")]
        return [*there, ENDPOINT_ID[:-1] + "0"]
    mint = api.mint.of_realm("\0batch") if batch else api.mint
    never = mint.issue("acme", api.clock.now + 5)
    forged = f"{never[:-1]}{'A' if never[-1] != 'A' else 'B'}"
    made = (own_batch,) if batch else (own_job, dead_letter, running_job)
    return [*[await make(api, "acme") for make in made], never, forged]


async def request(api: Api, method: str, path: str, name: str, token: str) -> Any:
    """With this id as each part of the path that is a tenant's."""
    names = {one: "echo" if one in OF_NO_TENANT else name for one in re.findall(r"{(\w+)}", path)}
    body = body_of(method, path)
    headers = {**bearer(token), **body.pop("headers", {})}
    return await api.http.request(method.upper(), path.format(**names), headers=headers, **body)


def told(answer: Any, name: str) -> tuple[int, list[tuple[str, str]], str]:
    """All of an answer but for the id that was asked for, or was made of it, and the request's own."""
    made = answer.json().get("id", name)
    headers = [(header, value.replace(made, "ID").replace(name, "ID")) for header, value in answer.headers.items()]
    body = answer.text.replace(made, "ID").replace(name, "ID").replace(answer.headers["x-request-id"], "REQUEST")
    return answer.status_code, [(header, value) for header, value in headers if header != "x-request-id"], body


@pytest.mark.parametrize(("method", "path"), OF_A_TENANT)
async def test_the_id_of_another_tenants_is_answered_as_one_that_never_was(
    api: Api, issue: Issuer, method: str, path: str
) -> None:
    """Whatever is asked of it, and whatever it is: nobody learns that there is such a job."""
    acme, rival = (await issue("acme"))[1], (await issue("rival"))[1]
    names = await ids_of(api, method, path, acme)
    answers = [told(await request(api, method, path, name, rival), name) for name in names]
    assert answers[0][0] == (202 if method == "put" else 404)
    assert answers == [answers[-1]] * len(names)


async def test_what_a_tenant_submits_is_theirs(api: Api, issue: Issuer) -> None:
    mine, others = (await issue("acme"))[1], (await issue("rival"))[1]
    job = {"model": "echo", "input": 1}
    answer = await api.http.post("/v1/jobs", json=job, headers={**bearer(mine), "idempotency-key": "k"})
    assert api.accepted().tenant == "acme"
    other = await api.http.post("/v1/jobs", json=job, headers={**bearer(others), "idempotency-key": "k"})
    assert other.json()["id"] != answer.json()["id"]
    await api.project_published()
    listed = await api.http.get("/v1/jobs", headers=bearer(others))
    assert [one["id"] for one in listed.json()["jobs"]] == [other.json()["id"]]


@pytest.mark.parametrize(
    "headers",
    [{"authorization": "bearer {}"}, {"authorization": "BEARER   {}"}, {"x-api-key": "{}"}],
)
async def test_a_key_may_come_in_either_header(api: Api, issue: Issuer, headers: dict[str, str]) -> None:
    _, token = await issue()
    given = {name: value.format(token) for name, value in headers.items()}
    assert (await api.http.get("/v1/jobs", headers=given)).status_code == 200


async def test_another_scheme_is_no_key(api: Api, issue: Issuer) -> None:
    await issue()
    answer = await api.http.get("/v1/jobs", headers={"authorization": "Basic eDp5"})
    assert answer.json()["code"] == "no_key"


@pytest.mark.parametrize("token", ["x" * 10_000, "fby_" + "0" * 12 + "_" + "A" * 43, "\xff\xfe"])
async def test_a_key_that_is_none_is_refused_whatever_it_is(api: Api, issue: Issuer, token: str) -> None:
    await issue()
    answer = await api.http.get("/v1/jobs", headers=[(b"x-api-key", token.encode("latin-1"))])
    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_key")


async def test_a_new_key_is_whose_it_is_at_once(api: Api, issue: Issuer) -> None:
    assert (await api.http.get("/v1/jobs")).status_code == 200  # known to be open for a while
    _, token = await issue("acme", [Scope.READ])
    answer = await api.http.post("/v1/jobs", json={"model": "echo", "input": 1}, headers=bearer(token))
    assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing")
    assert api.published == []


async def test_a_service_without_keys_takes_jobs_while_its_keys_cannot_be_read(make_api: MakeApi) -> None:
    keys = CountedKeys()
    api = make_api(keys=keys)
    assert (await api.http.get("/v1/jobs")).status_code == 200
    keys.away = True
    api.clock.now += KNOWN_FOR_S
    answer = await api.http.post("/v1/jobs", json={"model": "echo", "input": 1})
    assert answer.status_code == 202


async def test_as_long_as_there_has_never_been_a_key_nobody_is_asked(api: Api) -> None:
    assert (await api.http.get("/v1/jobs")).status_code == 200
    assert (await api.http.get("/v1/jobs", headers=bearer("anything"))).status_code == 200


async def test_the_first_key_closes_a_service_that_runs_and_its_end_does_not_open_it(api: Api, issue: Issuer) -> None:
    assert (await api.http.get("/v1/jobs")).status_code == 200
    key, token = await issue()
    api.clock.now += KNOWN_FOR_S
    assert (await api.http.get("/v1/jobs")).status_code == 401
    assert (await api.http.get("/v1/jobs", headers=bearer(token))).status_code == 200
    await api.keys.put(replace(key, revoked_at=api.clock.now))
    api.clock.now += KNOWN_FOR_S
    assert (await api.http.get("/v1/jobs", headers=bearer(token))).json()["code"] == "revoked_key"
    assert (await api.http.get("/v1/jobs")).status_code == 401


class CountedKeys(MemoryApiKeys):
    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.away = False

    async def get(self, key_id: str) -> ApiKey | None:
        self.asked += 1
        if self.away:
            raise Unavailable("the store is away")
        return await super().get(key_id)

    async def all(self) -> Sequence[ApiKey]:
        if self.away:
            raise Unavailable("the store is away")
        return await super().all()


async def test_keys_are_read_seldom_and_hold_for_a_while_when_they_cannot_be(make_api: MakeApi) -> None:
    keys = CountedKeys()
    api = make_api(keys=keys)
    _, token = await Issuer(keys)()
    for _ in range(20):
        assert (await api.http.get("/v1/jobs", headers=bearer(token))).status_code == 200
    assert keys.asked == 1
    keys.away = True
    api.clock.now += KNOWN_FOR_S
    assert (await api.http.get("/v1/jobs", headers=bearer(token))).status_code == 200  # what was known holds
    other = (await Issuer(MemoryApiKeys())())[1]
    assert (await api.http.get("/v1/jobs", headers=bearer(other.replace("fby_", "fby_0", 1)))).status_code == 503
    api.clock.now += STALE_S
    assert (await api.http.get("/v1/jobs", headers=bearer(token))).status_code == 503


def test_the_document_says_which_scope_each_route_takes() -> None:
    for method, path in OPERATIONS:
        security = DOCUMENT["paths"][path][method]["security"]
        takes = TAKES.get((method, path), Scope.READ).value
        assert security == ([] if path in PUBLIC else [{"bearer": [takes]}, {"key": [takes]}, {}])


# ------------------------------------------------------------------------------------------------------------- the key


def test_a_secret_is_kept_as_a_digest_only() -> None:
    key, token = new_key(tenant="acme", name="", scopes=ALL, now=NOW, random_bytes=lambda count: b"\x07" * count)
    key_id, secret = parse(token)
    assert key_id == key.id
    assert secret not in str(key)
    assert key.is_secret(secret)
    assert not key.is_secret(secret + "x")


def test_a_secret_of_an_operators_own_is_a_key_too() -> None:
    token = "correct-horse-battery-staple,and-more"
    key = of_secret(token, tenant="acme", name="first", scopes=ALL, now=NOW)
    assert parse(token) == (key.id, token)
    assert key.is_secret(token)
    for bad in ("short", "x" * 513, "with a space, and long enough for all", "é" * 40):
        with pytest.raises(InvalidRequest, match="32 to 512 visible ASCII"):
            of_secret(bad, tenant="acme", name="", scopes=ALL, now=NOW)


@pytest.mark.parametrize("tenant", ["", "a/b", "..", "a b", "é", "x" * 65, "-a"])
def test_a_tenant_that_makes_no_name_is_refused(tenant: str) -> None:
    with pytest.raises(InvalidRequest):
        new_key(tenant=tenant, name="", scopes=ALL, now=NOW, random_bytes=bytes)


def test_a_key_that_may_do_nothing_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="at least one scope"):
        new_key(tenant="acme", name="", scopes=(), now=NOW, random_bytes=bytes)


@pytest.mark.parametrize(
    ("expires_at", "revoked_at", "state"),
    [
        (None, None, "active"),
        (NOW + 1, None, "active"),
        (NOW, None, "expired"),
        (None, NOW, "revoked"),
        (NOW - 1, NOW - 1, "revoked"),
        (None, NOW + 1, "active"),
    ],
)
def test_a_key_has_one_state(expires_at: float | None, revoked_at: float | None, state: str) -> None:
    key, _ = new_key(tenant="acme", name="", scopes=ALL, now=NOW, random_bytes=bytes, expires_at=expires_at)
    assert replace(key, revoked_at=revoked_at).state(NOW) == state
