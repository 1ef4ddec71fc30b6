"""Quotas of tenants, kept without a word to anybody on the way of a submission: what this process accepts it counts
itself, and what others accept it learns from the store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import structlog

from forebay.api.unseen import Unseen
from forebay.core.errors import ForebayError, InvalidRequest, TooMany
from forebay.core.quota import DAY_S, MINUTE_S, Quota, Use, Window
from forebay.ports.quotas import Quotas
from forebay.ports.store import ResultStore

log = structlog.get_logger()

LOOK_EVERY_S = 1.0
"""How often the store is asked what a tenant uses, while it submits. What several API processes accept meanwhile may go
beyond a quota, and no more than that."""

QUOTA_KNOWN_FOR_S = 5.0
"""As for keys: so long a changed quota may not be known. After half of that it is looked at again beside a submission:
only who has been idle waits for it."""

OUTSTANDING_RETRY_S = 2.0
KNOWN_MOST = 10_000

_JOBS = "jobs"

_ASK = {
    "jobs_per_minute": "in any minute",
    "jobs_per_day": "a day (from midnight UTC)",
    "jobs_outstanding": "that are not final yet",
}


class Account:
    """What is known of one tenant. `limits`: its quota's; `seen`: what the store said last; `unseen`: what it may not
    have counted yet."""

    def __init__(self, limits: Mapping[str, int]) -> None:
        self.limits = limits
        self.quota_at = float("-inf")
        self.looked_at = float("-inf")
        self.seen = Use()
        self.unseen = Unseen[str]()
        self.window = Window()
        self.looking: asyncio.Task[None] | None = None


class Meter:
    """Lets a tenant have jobs accepted as its quota says, else as `defaults` does."""

    def __init__(
        self,
        *,
        quotas: Quotas,
        store: ResultStore,
        defaults: Quota,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        lag_s: Callable[[], float],
    ) -> None:
        self._quotas = quotas
        self._store = store
        self._defaults = defaults
        self._clock = clock
        self._monotonic = monotonic
        self._lag_s = lag_s
        self._accounts: dict[str, Account] = {}

    async def take(self, tenant: str, jobs: int = 1) -> None:
        """Note that so many are about to be accepted. Then none of them may be where it raises TooMany, with the code
        `quota_exceeded`, or InvalidRequest, `quota_too_small`, for more at once than there will ever be room for."""
        account = self._account(tenant)
        looking = self._look(tenant, account)
        unknown = self._monotonic() - account.quota_at >= QUOTA_KNOWN_FOR_S
        if looking is not None and (unknown or _refusal(account, jobs, self._clock())):
            await asyncio.shield(looking)  # nobody is refused for what is old
        if not account.limits:
            return
        now = self._clock()
        if refusal := _refusal(account, jobs, now):
            raise refusal
        account.window.add(jobs, now)
        account.unseen.add({_JOBS: jobs}, self._monotonic())

    def give_back(self, tenant: str, jobs: int = 1) -> None:
        """They were not accepted after all."""
        account = self._accounts.get(tenant)
        if account is not None and account.limits:
            account.window.add(-jobs, self._clock())
            account.unseen.subtract({_JOBS: jobs})

    def _account(self, tenant: str) -> Account:
        account = self._accounts.pop(tenant, None) or Account(self._defaults.limits)
        self._accounts[tenant] = account
        if len(self._accounts) > KNOWN_MOST:
            del self._accounts[next(iter(self._accounts))]
        return account

    def _look(self, tenant: str, account: Account) -> asyncio.Task[None] | None:
        """What learns anew what is old, beside the submission; None if nothing is."""
        now = self._monotonic()
        old = now - account.quota_at >= QUOTA_KNOWN_FOR_S / 2
        if (account.looking is None or account.looking.done()) and (
            old or (account.limits and now - account.looked_at >= LOOK_EVERY_S)
        ):
            account.looking = asyncio.create_task(self._learn(tenant, account, quota=old))
        return account.looking if account.looking and not account.looking.done() else None

    async def _learn(self, tenant: str, account: Account, *, quota: bool) -> None:
        """While the store is away, what was known holds, and what is accepted here is counted: a job takes nothing but
        the queue to submit."""
        try:
            if quota:
                account.limits = (await self._quotas.get(tenant)).or_else(self._defaults).limits
            if account.limits:
                await self._see(tenant, account)
        except ForebayError as error:  # nobody need await this task
            log.warning("quota.unknown", tenant=tenant, code=error.code, error=error.message)
        account.looked_at = self._monotonic()
        if quota:
            account.quota_at = account.looked_at

    async def _see(self, tenant: str, account: Account) -> None:
        now = self._clock()
        account.unseen.ask(self._monotonic(), self._lag_s())
        try:
            account.seen = await self._store.used(
                tenant,
                minute_from=now - MINUTE_S,
                day_from=now // DAY_S * DAY_S,
                most=Use(**account.limits),
            )
        except ForebayError:
            account.unseen.unanswered()
            raise
        account.unseen.answered()


def _refusal(account: Account, jobs: int, now: float) -> TooMany | InvalidRequest | None:
    used = _used(account, now)
    for name, limit in account.limits.items():
        if jobs > limit and jobs > 1:
            return InvalidRequest(
                f"{jobs} jobs come at once, and this tenant may have {limit} accepted {_ASK[name]}: its quota must be "
                "larger, or the jobs must come one by one",
                code="quota_too_small",
            )
        if getattr(used, name) + jobs > limit:
            return TooMany(
                f"this tenant may have {limit} jobs accepted {_ASK[name]}, and {getattr(used, name)} are",
                retry_after_s=_room_in_s(name, account, now),
                code="quota_exceeded",
            )
    return None


def _used(account: Account, now: float) -> Use:
    """Of minute and day this process knows its own exactly, of what is outstanding it does not."""
    seen, unseen, window = account.seen, account.unseen[_JOBS], account.window
    return Use(
        jobs_per_minute=max(seen.jobs_per_minute + unseen, window.minute(now)),
        jobs_per_day=max(seen.jobs_per_day + unseen, window.day(now)),
        jobs_outstanding=max(0, seen.jobs_outstanding + unseen),
    )


def _room_in_s(limit: str, account: Account, now: float) -> float:
    if limit == "jobs_per_day":
        return DAY_S - now % DAY_S
    if limit == "jobs_per_minute":
        return max(1.0, account.window.room_in_s(now))
    return OUTSTANDING_RETRY_S
