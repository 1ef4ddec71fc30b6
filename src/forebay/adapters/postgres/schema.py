"""The tables, all in the schema `forebay`. They refuse to leave a final state, whoever writes."""

from __future__ import annotations

import asyncpg

from forebay.core.errors import Misconfigured

SCHEMA = "forebay"
OLDEST_SERVER = 13

_FINAL = "('succeeded', 'failed', 'canceled', 'expired')"

# Any number that nobody else takes: the advisory lock under which the schema is changed.
_MIGRATION_LOCK = 0x466F7265626179

_MIGRATIONS = """
CREATE TABLE forebay.migrations (
    number     integer PRIMARY KEY,
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""

_POSITIONS = """
CREATE TABLE forebay.positions (
    source   text COLLATE "C" PRIMARY KEY,
    position text COLLATE "C" NOT NULL
)
"""

# `model` is '' for a stub: events came before the request. metrics, error and metadata are JSON. The fillfactor leaves
# room on each page for the next states of its rows, so that an update touches no index (a HOT update): measured, a row
# takes 6 us less for it and the table, after two updates of each row, a fifth less room.
_JOBS = f"""
CREATE TABLE forebay.jobs (
    tenant      text COLLATE "C" NOT NULL,
    id          text COLLATE "C" NOT NULL,
    status      text COLLATE "C" NOT NULL
                CHECK (status IN ('queued', 'running', 'succeeded', 'failed', 'canceled', 'expired')),
    model       text COLLATE "C" NOT NULL,
    version     text COLLATE "C" NOT NULL,
    lane        text COLLATE "C" NOT NULL,
    attempts    integer NOT NULL CHECK (attempts >= 0),
    created_at  double precision NOT NULL,
    started_at  double precision,
    finished_at double precision,
    metrics     bytea,
    error       bytea,
    metadata    bytea,
    durability  text COLLATE "C" NOT NULL,
    PRIMARY KEY (tenant, id),
    CHECK ((finished_at IS NOT NULL) = (status IN {_FINAL}))
) WITH (fillfactor = 50)
"""

_JOBS_NEWEST = "CREATE INDEX jobs_newest ON forebay.jobs (tenant, created_at, id) WHERE model <> ''"

_RESULTS = """
CREATE TABLE forebay.results (
    tenant          text COLLATE "C" NOT NULL,
    id              text COLLATE "C" NOT NULL,
    media_type      text COLLATE "C" NOT NULL,
    data            bytea,
    blob_name       text COLLATE "C",
    blob_size_bytes bigint,
    blob_sha256     text COLLATE "C",
    PRIMARY KEY (tenant, id),
    CHECK ((data IS NULL) = (blob_name IS NOT NULL AND blob_size_bytes IS NOT NULL AND blob_sha256 IS NOT NULL))
)
"""

# At most one row, while the derived tables are being filled anew; `until` is a JSON object of positions by source.
_REBUILDING = """
CREATE TABLE forebay.rebuilding (
    one   boolean PRIMARY KEY DEFAULT true CHECK (one),
    until bytea NOT NULL
)
"""

# Keys that name jobs. `holder` is '' where nobody holds the lease.
_RESERVATIONS = """
CREATE TABLE forebay.reservations (
    tenant       text COLLATE "C" NOT NULL,
    key          text COLLATE "C" NOT NULL,
    job_id       text COLLATE "C" NOT NULL,
    fingerprint  text COLLATE "C" NOT NULL,
    accepted_at  double precision NOT NULL,
    published    boolean NOT NULL,
    holder       text COLLATE "C" NOT NULL,
    leased_until timestamptz NOT NULL,
    PRIMARY KEY (tenant, key)
)
"""

_API_KEYS = """
CREATE TABLE forebay.api_keys (
    id         text COLLATE "C" PRIMARY KEY,
    tenant     text COLLATE "C" NOT NULL,
    name       text COLLATE "C" NOT NULL,
    scopes     text[] NOT NULL,
    digest     text COLLATE "C" NOT NULL,
    created_at double precision NOT NULL,
    expires_at double precision,
    revoked_at double precision
)
"""

# What the attempt that runs has said of itself, as JSON.
_INTERIM = "ALTER TABLE forebay.jobs ADD COLUMN interim bytea CHECK (interim IS NULL OR finished_at IS NULL)"

# Chunks number `first` to `last` of an attempt, as a JSON array. By the last: so that the row that holds a chunk and
# all that follow are one range.
_PARTIALS = """
CREATE TABLE forebay.partials (
    tenant  text COLLATE "C" NOT NULL,
    id      text COLLATE "C" NOT NULL,
    attempt integer NOT NULL,
    last    integer NOT NULL,
    first   integer NOT NULL,
    chunks  bytea NOT NULL,
    PRIMARY KEY (tenant, id, attempt, last)
)
"""

# Batches, and which line of which batch a job is; `batch` is '' for a job that came alone. `created_at` of a batch is 0
# for a stub: its jobs came before the fact that opened it.
_LINES_OF_JOBS = (
    """ALTER TABLE forebay.jobs
        ADD COLUMN batch text COLLATE "C" NOT NULL DEFAULT '',
        ADD COLUMN line integer NOT NULL DEFAULT 0,
        ADD COLUMN custom_id text COLLATE "C" NOT NULL DEFAULT ''
    """,
    "CREATE INDEX jobs_of_batch ON forebay.jobs (tenant, batch, line) WHERE batch <> ''",
)
_LINE_IS_FINAL = """
CREATE TRIGGER line_is_final BEFORE UPDATE OF batch, line, custom_id ON forebay.jobs FOR EACH ROW WHEN (
    OLD.model <> '' AND (NEW.batch <> OLD.batch OR NEW.line <> OLD.line OR NEW.custom_id <> OLD.custom_id)
) EXECUTE FUNCTION forebay.refuse('the line of a job never changes')
"""
_BATCHES = """
CREATE TABLE forebay.batches (
    tenant      text COLLATE "C" NOT NULL,
    id          text COLLATE "C" NOT NULL,
    model       text COLLATE "C" NOT NULL,
    created_at  double precision NOT NULL,
    sealed_at   double precision,
    canceled_at double precision,
    last_at     double precision NOT NULL,
    lines       integer NOT NULL,
    accepted    integer NOT NULL,
    rejected    integer NOT NULL,
    queued      integer NOT NULL,
    running     integer NOT NULL,
    succeeded   integer NOT NULL,
    failed      integer NOT NULL,
    canceled    integer NOT NULL,
    expired     integer NOT NULL,
    PRIMARY KEY (tenant, id)
) WITH (fillfactor = 50)
"""
_BATCHES_NEWEST = "CREATE INDEX batches_newest ON forebay.batches (tenant, created_at, id) WHERE created_at > 0"
_REJECTED_LINES = """
CREATE TABLE forebay.rejected_lines (
    tenant    text COLLATE "C" NOT NULL,
    batch     text COLLATE "C" NOT NULL,
    line      integer NOT NULL,
    custom_id text COLLATE "C" NOT NULL,
    code      text COLLATE "C" NOT NULL,
    message   text COLLATE "C" NOT NULL,
    pointer   text COLLATE "C" NOT NULL,
    PRIMARY KEY (tenant, batch, line)
)
"""

# How many jobs wait and run. Each transaction adds to the row of a source whose position it has locked before, so that
# projectors of different sources never wait for each other here; the sum over all sources is what counts.
_QUEUE_COUNTS = """
CREATE TABLE forebay.queue_counts (
    source  text COLLATE "C" NOT NULL,
    model   text COLLATE "C" NOT NULL,
    lane    text COLLATE "C" NOT NULL,
    waiting bigint NOT NULL,
    running bigint NOT NULL,
    PRIMARY KEY (model, lane, source)
) WITH (fillfactor = 50)
"""
_COUNT = """
INSERT INTO forebay.queue_counts
SELECT '', model, lane, count(*) FILTER (WHERE status = 'queued'), count(*) FILTER (WHERE status = 'running')
FROM forebay.jobs WHERE model <> '' AND status IN ('queued', 'running') GROUP BY model, lane
"""

# Those that wait, the oldest first. A table and no partial index of `jobs`: an index whose condition names the status
# would end the HOT updates there (measured: 6 to 11 us more for each of a job's three facts).
_WAITING = """
CREATE TABLE forebay.waiting (
    model      text COLLATE "C" NOT NULL,
    lane       text COLLATE "C" NOT NULL,
    created_at double precision NOT NULL,
    id         text COLLATE "C" NOT NULL,
    tenant     text COLLATE "C" NOT NULL,
    PRIMARY KEY (model, lane, created_at, id, tenant)
)
"""
_DUE_AT = "ALTER TABLE forebay.jobs ADD COLUMN due_at double precision CHECK (due_at IS NULL OR finished_at IS NULL)"
_WAIT = """
INSERT INTO forebay.waiting SELECT model, lane, created_at, id, tenant FROM forebay.jobs
WHERE model <> '' AND status = 'queued'
"""

_REFUSE = """
CREATE FUNCTION forebay.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'integrity_constraint_violation', MESSAGE = TG_ARGV[0];
END $$
"""

# What may still change in a final row: the request's own columns, once, while it is a stub.
_FINAL_IS_FINAL = f"""
CREATE TRIGGER final_is_final BEFORE UPDATE ON forebay.jobs FOR EACH ROW WHEN (OLD.status IN {_FINAL} AND (
    NEW.tenant <> OLD.tenant OR NEW.id <> OLD.id OR NEW.status <> OLD.status OR NEW.attempts <> OLD.attempts
    OR NEW.started_at IS DISTINCT FROM OLD.started_at OR NEW.finished_at IS DISTINCT FROM OLD.finished_at
    OR NEW.metrics IS DISTINCT FROM OLD.metrics OR NEW.error IS DISTINCT FROM OLD.error
    OR (OLD.version <> '' AND NEW.version <> OLD.version)
    OR (OLD.model <> '' AND (
        NEW.model <> OLD.model OR NEW.version <> OLD.version OR NEW.lane <> OLD.lane
        OR NEW.created_at <> OLD.created_at OR NEW.metadata IS DISTINCT FROM OLD.metadata
        OR NEW.durability <> OLD.durability
    ))
)) EXECUTE FUNCTION forebay.refuse('a final job never changes')
"""

_RESULT_IS_FINAL = """
CREATE TRIGGER result_is_final BEFORE UPDATE ON forebay.results
FOR EACH ROW EXECUTE FUNCTION forebay.refuse('a result never changes')
"""

# A result is written before its job becomes final, in the same transaction, and never after. Looked at once for all
# rows of a statement, each by the primary key: a subquery in this place is never turned into a join.
_REFUSE_LATE_RESULTS = f"""
CREATE FUNCTION forebay.refuse_late_results() RETURNS trigger LANGUAGE plpgsql SET enable_seqscan = off AS $$
BEGIN
    IF EXISTS (
        SELECT FROM written WHERE (
            SELECT status FROM forebay.jobs WHERE jobs.tenant = written.tenant AND jobs.id = written.id
        ) IN {_FINAL}
    ) THEN
        RAISE EXCEPTION USING
            ERRCODE = 'integrity_constraint_violation', MESSAGE = 'the result of a final job never changes';
    END IF;
    RETURN NULL;
END $$
"""
_RESULT_BEFORE_FINAL = """
CREATE TRIGGER result_before_final AFTER INSERT ON forebay.results REFERENCING NEW TABLE AS written
FOR EACH STATEMENT EXECUTE FUNCTION forebay.refuse_late_results()
"""

# `place`: where the job's request stands in the log, '' where that was not kept. `history` is JSON.
_RETRIES = """
ALTER TABLE forebay.jobs
    ADD COLUMN retry_of text COLLATE "C" NOT NULL DEFAULT '',
    ADD COLUMN place text COLLATE "C" NOT NULL DEFAULT '',
    ADD COLUMN history bytea
"""

# How many jobs of a tenant are not final; by source, as queue_counts are.
_OUTSTANDING = """
CREATE TABLE forebay.outstanding (
    source text COLLATE "C" NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    jobs   bigint NOT NULL,
    PRIMARY KEY (tenant, source)
) WITH (fillfactor = 50)
"""
_COUNT_OUTSTANDING = """
INSERT INTO forebay.outstanding
SELECT '', tenant, count(*) FROM forebay.jobs WHERE model <> '' AND finished_at IS NULL GROUP BY tenant
"""

_QUOTAS = """
CREATE TABLE forebay.quotas (
    tenant           text COLLATE "C" PRIMARY KEY,
    jobs_per_minute  bigint,
    jobs_per_day     bigint,
    jobs_outstanding bigint
)
"""

# The clocks of a job, all in the log's time; `over_at` is when time alone will bring it further, NULL where there is
# nothing to be done. With `deleted_at` it is a tombstone.
_CLOCKS = (
    """
    ALTER TABLE forebay.jobs ADD COLUMN expires_at double precision, ADD COLUMN dies_at double precision,
    ADD COLUMN retain_s double precision NOT NULL DEFAULT 86400, ADD COLUMN ended_at double precision,
    ADD COLUMN deleted_at double precision, ADD COLUMN over_at double precision
    """,
    "UPDATE forebay.jobs SET ended_at = finished_at WHERE finished_at IS NOT NULL",
    """
    UPDATE forebay.jobs SET dies_at = created_at + 86400, over_at = coalesce(ended_at, created_at) + 86400
    WHERE model <> ''
    """,
    "CREATE INDEX jobs_over ON forebay.jobs (over_at) WHERE over_at IS NOT NULL AND deleted_at IS NULL",
    "CREATE INDEX jobs_unswept ON forebay.jobs (over_at) WHERE over_at IS NOT NULL AND deleted_at IS NOT NULL",
    "CREATE INDEX jobs_deleted ON forebay.jobs (deleted_at) WHERE deleted_at IS NOT NULL",
    "CREATE INDEX reservations_of_job ON forebay.reservations (tenant, job_id)",
    "CREATE INDEX reservations_unpublished ON forebay.reservations (accepted_at) WHERE NOT published",
    "DROP TRIGGER final_is_final ON forebay.jobs",
)

# A final row may only become a tombstone, and that stays one.
_FINAL_UNLESS_DELETED = f"""
CREATE TRIGGER final_is_final BEFORE UPDATE ON forebay.jobs FOR EACH ROW WHEN (
    OLD.deleted_at IS DISTINCT FROM NEW.deleted_at AND OLD.deleted_at IS NOT NULL
    OR OLD.status IN {_FINAL} AND NEW.deleted_at IS NULL AND (
    NEW.tenant <> OLD.tenant OR NEW.id <> OLD.id OR NEW.status <> OLD.status OR NEW.attempts <> OLD.attempts
    OR NEW.started_at IS DISTINCT FROM OLD.started_at OR NEW.finished_at IS DISTINCT FROM OLD.finished_at
    OR NEW.metrics IS DISTINCT FROM OLD.metrics OR NEW.error IS DISTINCT FROM OLD.error
    OR NEW.ended_at IS DISTINCT FROM OLD.ended_at
    OR (OLD.version <> '' AND NEW.version <> OLD.version)
    OR (OLD.model <> '' AND (
        NEW.model <> OLD.model OR NEW.version <> OLD.version OR NEW.lane <> OLD.lane
        OR NEW.created_at <> OLD.created_at OR NEW.metadata IS DISTINCT FROM OLD.metadata
        OR NEW.durability <> OLD.durability OR NEW.retain_s <> OLD.retain_s
    ))
)) EXECUTE FUNCTION forebay.refuse('a final job never changes')
"""

# What a tenant has had, deleted jobs included, so that deleting makes no room in a quota.
_DELETED_OF_TENANT = """
CREATE INDEX jobs_deleted_of_tenant ON forebay.jobs (tenant, created_at) WHERE deleted_at IS NOT NULL
"""

# Each as JSON: nobody asks for what is in it.
_WEBHOOK_ENDPOINTS = """
CREATE TABLE forebay.webhook_endpoints (
    tenant     text COLLATE "C" NOT NULL,
    id         text COLLATE "C" NOT NULL,
    created_at double precision NOT NULL,
    endpoint   bytea NOT NULL,
    PRIMARY KEY (tenant, id)
)
"""

# Whom a job or batch tells of itself, as JSON, and what it told: the outbox. `job_id` is of the job or batch that it
# tells of; `type` is '' for a stub: tries of it came before the facts that made it. `tries` are JSON. Nobody holds it
# from `held_until` on; `gives_up_at` is when it has waited too long.
_IS_PENDING = "status = 'pending' AND type <> ''"
_OUTBOX = (
    "ALTER TABLE forebay.jobs ADD COLUMN webhooks bytea",
    "ALTER TABLE forebay.batches ADD COLUMN webhooks bytea",
    """
CREATE TABLE forebay.deliveries (
    tenant      text COLLATE "C" NOT NULL,
    job_id      text COLLATE "C" NOT NULL,
    id          text COLLATE "C" NOT NULL,
    type        text COLLATE "C" NOT NULL,
    endpoint    text COLLATE "C" NOT NULL,
    url         text COLLATE "C" NOT NULL,
    created_at  double precision NOT NULL,
    status      text COLLATE "C" NOT NULL CHECK (status IN ('pending', 'delivered', 'parked')),
    tried       integer NOT NULL,
    tries       bytea,
    in_turn     integer NOT NULL,
    since       double precision NOT NULL,
    next_at     double precision,
    reason      text COLLATE "C" NOT NULL,
    receiver    text COLLATE "C" NOT NULL,
    gives_up_at double precision NOT NULL,
    holder      text COLLATE "C" NOT NULL DEFAULT '',
    held_until  double precision NOT NULL DEFAULT 0,
    body        bytea NOT NULL,
    PRIMARY KEY (tenant, job_id, id)
)
""",
    f"CREATE INDEX deliveries_due ON forebay.deliveries (receiver, next_at, id) WHERE {_IS_PENDING}",
    f"CREATE INDEX deliveries_late ON forebay.deliveries (gives_up_at) WHERE {_IS_PENDING}",
    "CREATE INDEX deliveries_held ON forebay.deliveries (holder) WHERE holder <> ''",
    "CREATE INDEX deliveries_oldest ON forebay.deliveries (tenant, created_at, id) WHERE type <> ''",
    """
CREATE TABLE forebay.held_outputs (
    tenant  text COLLATE "C" NOT NULL,
    job_id  text COLLATE "C" NOT NULL,
    attempt integer NOT NULL,
    first   integer NOT NULL,
    at      double precision NOT NULL,
    chunks  bytea NOT NULL,
    PRIMARY KEY (tenant, job_id, attempt, first)
)
""",
)

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        _POSITIONS,
        _JOBS,
        _JOBS_NEWEST,
        _RESULTS,
        _REBUILDING,
        _REFUSE,
        _FINAL_IS_FINAL,
        _RESULT_IS_FINAL,
        _REFUSE_LATE_RESULTS,
        _RESULT_BEFORE_FINAL,
    ),
    (_RESERVATIONS, _API_KEYS),
    (_INTERIM, _PARTIALS),
    (*_LINES_OF_JOBS, _LINE_IS_FINAL, _BATCHES, _BATCHES_NEWEST, _REJECTED_LINES),
    (_QUEUE_COUNTS, _COUNT, _WAITING, _WAIT),
    (_RETRIES,),
    (_QUOTAS, _OUTSTANDING, _COUNT_OUTSTANDING),
    (_DUE_AT,),
    (*_CLOCKS, _FINAL_UNLESS_DELETED),
    (_DELETED_OF_TENANT,),
    (_WEBHOOK_ENDPOINTS,),
    _OUTBOX,
)
"""Statements that lead from version n to n + 1. Only ever appended to: databases of every released version exist."""


async def migrate(connection: asyncpg.Connection, timeout_s: float) -> None:
    """Bring the database to the newest version, all steps in one transaction; processes that start at once take turns.

    Raises Misconfigured for a server that is too old, a database that is not in UTF-8, and a newer schema.
    """
    await _check_server(connection)
    if await _version(connection) == len(MIGRATIONS):
        return
    async with connection.transaction(isolation="read_committed"):
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _MIGRATION_LOCK, timeout=timeout_s)
        version = await _version(connection)
        if version == 0:
            await _create_schema(connection)
        for number, statements in enumerate(MIGRATIONS[version:], start=version + 1):
            for statement in statements:
                await connection.execute(statement, timeout=timeout_s)
            await connection.execute("INSERT INTO forebay.migrations (number) VALUES ($1)", number)


async def _check_server(connection: asyncpg.Connection) -> None:
    server = connection.get_server_version()
    if server.major < OLDEST_SERVER:
        raise Misconfigured(f"the server is PostgreSQL {server.major}; Forebay needs {OLDEST_SERVER} or newer")
    encoding = await connection.fetchval("SHOW server_encoding")
    if encoding != "UTF8":
        raise Misconfigured(
            f"the database is in {encoding}, which cannot hold every name; create it with ENCODING 'UTF8' TEMPLATE "
            "template0"
        )


async def _version(connection: asyncpg.Connection) -> int:
    """0 for a database without our tables. Raises Misconfigured for a newer one."""
    # Read from the catalog's rows: to_regclass answers from a cache, which knows nothing of a table that another
    # process has made while this one waited for the lock.
    if not await connection.fetchval(
        "SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_tables WHERE schemaname = 'forebay' AND tablename = 'migrations')"
    ):
        return 0
    version: int = await connection.fetchval("SELECT coalesce(max(number), 0) FROM forebay.migrations")
    if version > len(MIGRATIONS):
        raise Misconfigured(
            f"the database was used by a newer Forebay (schema {version}; this one knows up to {len(MIGRATIONS)}); "
            "install that version again, or name another database"
        )
    return version


async def _create_schema(connection: asyncpg.Connection) -> None:
    """Asked for only where it is missing: IF NOT EXISTS wants the right to create one even where it is there."""
    if not await connection.fetchval("SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)", SCHEMA):
        await connection.execute(f"CREATE SCHEMA {SCHEMA}")
    await connection.execute(_MIGRATIONS)
