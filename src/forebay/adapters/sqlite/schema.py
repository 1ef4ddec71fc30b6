"""The tables. The schema itself refuses to leave a final state, whoever writes."""

from __future__ import annotations

from pathlib import Path

import apsw

from forebay.core.errors import Misconfigured

_FINAL = "('succeeded', 'failed', 'canceled', 'expired')"

# Requests and events share one order, so that a request always stands before what is said of it. AUTOINCREMENT: a
# position must never name another row later, even after old rows have been swept.
_LOG = """
CREATE TABLE log (
    seq     INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant  TEXT NOT NULL,
    job_id  TEXT NOT NULL,
    headers BLOB NOT NULL,  -- a JSON object of strings
    value   BLOB NOT NULL
) STRICT
"""

# The queue's index into the log. `due_at_us` is 0 for a row that waits for nothing, else microseconds since the epoch:
# integers, since rows are addressed by it. `attempt` counts the attempts begun; `running` is 1 from the beginning of
# one until somebody says how it ended; `cut_off` counts earlier ones of which nobody ever did.
_PENDING = """
CREATE TABLE pending (
    model     TEXT NOT NULL,
    lane      TEXT NOT NULL,
    due_at_us INTEGER NOT NULL,
    seq       INTEGER NOT NULL,
    attempt   INTEGER NOT NULL,
    running   INTEGER NOT NULL,
    cut_off   INTEGER NOT NULL,
    PRIMARY KEY (model, lane, due_at_us, seq)
) STRICT, WITHOUT ROWID
"""

_POSITIONS = """
CREATE TABLE positions (
    source   TEXT PRIMARY KEY,
    position TEXT NOT NULL
) STRICT, WITHOUT ROWID
"""

# `model` is '' for a stub: events came before the request.
_JOBS = f"""
CREATE TABLE jobs (
    tenant      TEXT NOT NULL,
    id          TEXT NOT NULL,
    status      TEXT NOT NULL CHECK (status IN ('queued', 'running', 'succeeded', 'failed', 'canceled', 'expired')),
    model       TEXT NOT NULL,
    version     TEXT NOT NULL,
    lane        TEXT NOT NULL,
    attempts    INTEGER NOT NULL CHECK (attempts >= 0),
    created_at  REAL NOT NULL,
    started_at  REAL,
    finished_at REAL,
    metrics     BLOB,  -- JSON, as are error and metadata
    error       BLOB,
    metadata    BLOB,
    durability  TEXT NOT NULL,  -- '' if the request did not say
    PRIMARY KEY (tenant, id),
    CHECK ((finished_at IS NOT NULL) = (status IN {_FINAL}))
) STRICT, WITHOUT ROWID
"""

_JOBS_NEWEST = "CREATE INDEX jobs_newest ON jobs (tenant, created_at, id) WHERE model <> ''"

# How many jobs of a tenant are not final.
_OUTSTANDING = """
CREATE TABLE outstanding (
    tenant TEXT PRIMARY KEY,
    jobs   INTEGER NOT NULL
) STRICT, WITHOUT ROWID
"""
_COUNT_OUTSTANDING = """
INSERT INTO outstanding SELECT tenant, count(*) FROM jobs WHERE model <> '' AND finished_at IS NULL GROUP BY tenant
"""

# A rowid table, since outputs may be large (sqlite.org/withoutrowid.html, section 3).
_RESULTS = """
CREATE TABLE results (
    tenant          TEXT NOT NULL,
    id              TEXT NOT NULL,
    media_type      TEXT NOT NULL,
    data            BLOB,
    blob_name       TEXT,
    blob_size_bytes INTEGER,
    blob_sha256     TEXT,
    PRIMARY KEY (tenant, id),
    CHECK ((data IS NULL) = (blob_name IS NOT NULL AND blob_size_bytes IS NOT NULL AND blob_sha256 IS NOT NULL))
) STRICT
"""

# What may still change in a final row: the request's own columns, once, while it is a stub.
_FINAL_IS_FINAL = f"""
CREATE TRIGGER final_is_final BEFORE UPDATE ON jobs WHEN OLD.status IN {_FINAL} AND (
    NEW.tenant <> OLD.tenant OR NEW.id <> OLD.id OR NEW.status <> OLD.status OR NEW.attempts <> OLD.attempts
    OR NEW.started_at IS NOT OLD.started_at OR NEW.finished_at IS NOT OLD.finished_at
    OR NEW.metrics IS NOT OLD.metrics OR NEW.error IS NOT OLD.error
    OR (OLD.version <> '' AND NEW.version <> OLD.version)
    OR (OLD.model <> '' AND (
        NEW.model <> OLD.model OR NEW.version <> OLD.version OR NEW.lane <> OLD.lane
        OR NEW.created_at <> OLD.created_at OR NEW.metadata IS NOT OLD.metadata
        OR NEW.durability <> OLD.durability
    ))
) BEGIN SELECT RAISE(ABORT, 'a final job never changes'); END
"""

# INSERT OR REPLACE runs no UPDATE trigger (sqlite.org/lang_conflict.html), so it is stopped where it begins.
_FINAL_IS_NOT_REPLACED = f"""
CREATE TRIGGER final_is_not_replaced BEFORE INSERT ON jobs WHEN EXISTS (
    SELECT 1 FROM jobs WHERE tenant = NEW.tenant AND id = NEW.id AND status IN {_FINAL}
) BEGIN SELECT RAISE(ABORT, 'a final job never changes'); END
"""

# A result is written before its job becomes final, in the same transaction, and never after.
_RESULT_BEFORE_FINAL = f"""
CREATE TRIGGER result_before_final BEFORE INSERT ON results WHEN EXISTS (
    SELECT 1 FROM jobs WHERE tenant = NEW.tenant AND id = NEW.id AND status IN {_FINAL}
) BEGIN SELECT RAISE(ABORT, 'the result of a final job never changes'); END
"""

_RESULT_IS_FINAL = """
CREATE TRIGGER result_is_final BEFORE UPDATE ON results
BEGIN SELECT RAISE(ABORT, 'a result never changes'); END
"""

# A row while the derived tables are being filled anew; `until` is a JSON object of positions by source.
_REBUILDING = "CREATE TABLE rebuilding (until TEXT NOT NULL) STRICT"

# Jobs that need not run any more; the newest stand last.
_CANCELED = """
CREATE TABLE canceled (
    seq    INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant TEXT NOT NULL,
    job_id TEXT NOT NULL
) STRICT
"""

# Keys that name jobs. `leased_until` is in seconds since the epoch; `holder` is '' where nobody holds it.
_RESERVATIONS = """
CREATE TABLE reservations (
    tenant       TEXT NOT NULL,
    key          TEXT NOT NULL,
    job_id       TEXT NOT NULL,
    fingerprint  TEXT NOT NULL,
    accepted_at  REAL NOT NULL,
    published    INTEGER NOT NULL CHECK (published IN (0, 1)),
    holder       TEXT NOT NULL,
    leased_until REAL NOT NULL,
    PRIMARY KEY (tenant, key)
) STRICT, WITHOUT ROWID
"""

# What the attempt that runs has said of itself, as JSON.
_INTERIM = "ALTER TABLE jobs ADD COLUMN interim BLOB CHECK (interim IS NULL OR finished_at IS NULL)"

# Chunks number `first` to `last` of an attempt, as a JSON array; a rowid table, since they may be large. By the last:
# so that the row that holds a chunk and all that follow are one range.
_PARTIALS = """
CREATE TABLE partials (
    tenant  TEXT NOT NULL,
    id      TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    last    INTEGER NOT NULL,
    first   INTEGER NOT NULL,
    chunks  BLOB NOT NULL,
    PRIMARY KEY (tenant, id, attempt, last)
) STRICT
"""

# Batches, and which line of which batch a job is; `batch` is '' for a job that came alone. `created_at` of a batch is 0
# for a stub: its jobs came before the fact that opened it.
_LINES_OF_JOBS = (
    "ALTER TABLE jobs ADD COLUMN batch TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE jobs ADD COLUMN line INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE jobs ADD COLUMN custom_id TEXT NOT NULL DEFAULT ''",
    "CREATE INDEX jobs_of_batch ON jobs (tenant, batch, line) WHERE batch <> ''",
)
_LINE_IS_FINAL = """
CREATE TRIGGER line_is_final BEFORE UPDATE OF batch, line, custom_id ON jobs WHEN OLD.model <> '' AND (
    NEW.batch <> OLD.batch OR NEW.line <> OLD.line OR NEW.custom_id <> OLD.custom_id
) BEGIN SELECT RAISE(ABORT, 'the line of a job never changes'); END
"""
_BATCHES = """
CREATE TABLE batches (
    tenant      TEXT NOT NULL,
    id          TEXT NOT NULL,
    model       TEXT NOT NULL,
    created_at  REAL NOT NULL,
    sealed_at   REAL,
    canceled_at REAL,
    last_at     REAL NOT NULL,
    lines       INTEGER NOT NULL,
    accepted    INTEGER NOT NULL,
    rejected    INTEGER NOT NULL,
    queued      INTEGER NOT NULL,  -- and so on: visible jobs by status
    running     INTEGER NOT NULL,
    succeeded   INTEGER NOT NULL,
    failed      INTEGER NOT NULL,
    canceled    INTEGER NOT NULL,
    expired     INTEGER NOT NULL,
    PRIMARY KEY (tenant, id)
) STRICT, WITHOUT ROWID
"""
_BATCHES_NEWEST = "CREATE INDEX batches_newest ON batches (tenant, created_at, id) WHERE created_at > 0"
_REJECTED_LINES = """
CREATE TABLE rejected_lines (
    tenant    TEXT NOT NULL,
    batch     TEXT NOT NULL,
    line      INTEGER NOT NULL,
    custom_id TEXT NOT NULL,
    code      TEXT NOT NULL,
    message   TEXT NOT NULL,
    pointer   TEXT NOT NULL,
    PRIMARY KEY (tenant, batch, line)
) STRICT, WITHOUT ROWID
"""

# How many jobs wait and run, and an index through those that wait, the oldest first.
_QUEUE_COUNTS = """
CREATE TABLE queue_counts (
    model   TEXT NOT NULL,
    lane    TEXT NOT NULL,
    waiting INTEGER NOT NULL,
    running INTEGER NOT NULL,
    PRIMARY KEY (model, lane)
) STRICT, WITHOUT ROWID
"""
_COUNT = """
INSERT INTO queue_counts SELECT model, lane, sum(status = 'queued'), sum(status = 'running') FROM jobs
WHERE model <> '' AND status IN ('queued', 'running') GROUP BY model, lane
"""
_DUE_AT = "ALTER TABLE jobs ADD COLUMN due_at REAL CHECK (due_at IS NULL OR finished_at IS NULL)"
_JOBS_WAITING = """
CREATE INDEX jobs_waiting ON jobs (model, lane, created_at, id) WHERE status = 'queued' AND model <> ''
"""

# `place`: where the job's request stands in the log, '' where that was not kept. `history` is JSON.
_RETRIES = (
    "ALTER TABLE jobs ADD COLUMN retry_of TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE jobs ADD COLUMN place TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE jobs ADD COLUMN history BLOB",
)

# The clocks of a job, all in the log's time; `over_at` is when time alone will bring it further, NULL where there is
# nothing to be done. With `deleted_at` it is a tombstone. `logged_at` is when the log took a row, 0 in older rows.
_CLOCKS = (
    "ALTER TABLE log ADD COLUMN logged_at REAL NOT NULL DEFAULT 0",
    "ALTER TABLE jobs ADD COLUMN expires_at REAL",
    "ALTER TABLE jobs ADD COLUMN dies_at REAL",
    "ALTER TABLE jobs ADD COLUMN retain_s REAL NOT NULL DEFAULT 86400",
    "ALTER TABLE jobs ADD COLUMN ended_at REAL",
    "ALTER TABLE jobs ADD COLUMN deleted_at REAL",
    "ALTER TABLE jobs ADD COLUMN over_at REAL",
    "UPDATE jobs SET ended_at = finished_at",
    "UPDATE jobs SET dies_at = created_at + 86400, over_at = coalesce(ended_at, created_at) + 86400 WHERE model <> ''",
    "CREATE INDEX jobs_over ON jobs (over_at) WHERE over_at IS NOT NULL AND deleted_at IS NULL",
    "CREATE INDEX jobs_unswept ON jobs (over_at) WHERE over_at IS NOT NULL AND deleted_at IS NOT NULL",
    "CREATE INDEX jobs_deleted ON jobs (deleted_at) WHERE deleted_at IS NOT NULL",
    "CREATE INDEX log_of_job ON log (tenant, job_id)",
    "CREATE INDEX reservations_of_job ON reservations (tenant, job_id)",
    "CREATE INDEX reservations_unpublished ON reservations (accepted_at) WHERE NOT published",
    "DROP TRIGGER final_is_final",
)

# A final row may only become a tombstone, and that stays one.
_FINAL_UNLESS_DELETED = f"""
CREATE TRIGGER final_is_final BEFORE UPDATE ON jobs WHEN OLD.deleted_at IS NOT NEW.deleted_at
AND OLD.deleted_at IS NOT NULL OR OLD.status IN {_FINAL} AND NEW.deleted_at IS NULL AND (
    NEW.tenant <> OLD.tenant OR NEW.id <> OLD.id OR NEW.status <> OLD.status OR NEW.attempts <> OLD.attempts
    OR NEW.started_at IS NOT OLD.started_at OR NEW.finished_at IS NOT OLD.finished_at
    OR NEW.metrics IS NOT OLD.metrics OR NEW.error IS NOT OLD.error OR NEW.ended_at IS NOT OLD.ended_at
    OR (OLD.version <> '' AND NEW.version <> OLD.version)
    OR (OLD.model <> '' AND (
        NEW.model <> OLD.model OR NEW.version <> OLD.version OR NEW.lane <> OLD.lane
        OR NEW.created_at <> OLD.created_at OR NEW.metadata IS NOT OLD.metadata
        OR NEW.durability <> OLD.durability OR NEW.retain_s <> OLD.retain_s
    ))
) BEGIN SELECT RAISE(ABORT, 'a final job never changes'); END
"""

# What a tenant has had, deleted jobs included, so that deleting makes no room in a quota.
_DELETED_OF_TENANT = "CREATE INDEX jobs_deleted_of_tenant ON jobs (tenant, created_at) WHERE deleted_at IS NOT NULL"

# Whom a job or batch tells of itself, as JSON, and what it told: the outbox. `type` is '' for a stub: tries of it came
# before the facts that made it. Nobody holds it from `held_until` on; `gives_up_at` is when it has waited too long. The
# body stands last, so that who reads the rest does not read its pages.
_IS_PENDING = "status = 'pending' AND type <> ''"
_OUTBOX = (
    "ALTER TABLE jobs ADD COLUMN webhooks BLOB",
    "ALTER TABLE batches ADD COLUMN webhooks BLOB",
    """
CREATE TABLE deliveries (
    tenant      TEXT NOT NULL,
    job_id      TEXT NOT NULL,  -- of the job or batch that it tells of
    id          TEXT NOT NULL,
    type        TEXT NOT NULL,
    endpoint    TEXT NOT NULL,
    url         TEXT NOT NULL,
    created_at  REAL NOT NULL,
    status      TEXT NOT NULL CHECK (status IN ('pending', 'delivered', 'parked')),
    tried       INTEGER NOT NULL,
    tries       BLOB,  -- JSON
    in_turn     INTEGER NOT NULL,
    since       REAL NOT NULL,
    next_at     REAL,
    reason      TEXT NOT NULL,
    receiver    TEXT NOT NULL,
    gives_up_at REAL NOT NULL,
    holder      TEXT NOT NULL DEFAULT '',
    held_until  REAL NOT NULL DEFAULT 0,
    body        BLOB NOT NULL,
    PRIMARY KEY (tenant, job_id, id)
) STRICT
""",
    f"CREATE INDEX deliveries_due ON deliveries (receiver, next_at, id) WHERE {_IS_PENDING}",
    f"CREATE INDEX deliveries_late ON deliveries (gives_up_at) WHERE {_IS_PENDING}",
    "CREATE INDEX deliveries_held ON deliveries (holder) WHERE holder <> ''",
    "CREATE INDEX deliveries_oldest ON deliveries (tenant, created_at, id) WHERE type <> ''",
    """
CREATE TABLE held_outputs (
    tenant  TEXT NOT NULL,
    job_id  TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    first   INTEGER NOT NULL,
    at      REAL NOT NULL,
    chunks  BLOB NOT NULL,
    PRIMARY KEY (tenant, job_id, attempt, first)
) STRICT
""",
)

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        _LOG,
        _PENDING,
        _POSITIONS,
        _JOBS,
        _JOBS_NEWEST,
        _RESULTS,
        _FINAL_IS_FINAL,
        _FINAL_IS_NOT_REPLACED,
        _RESULT_BEFORE_FINAL,
        _RESULT_IS_FINAL,
    ),
    (_REBUILDING,),
    (_CANCELED,),
    (_RESERVATIONS,),
    (_INTERIM, _PARTIALS),
    (*_LINES_OF_JOBS, _LINE_IS_FINAL, _BATCHES, _BATCHES_NEWEST, _REJECTED_LINES),
    (_QUEUE_COUNTS, _COUNT, _JOBS_WAITING),
    _RETRIES,
    (_OUTSTANDING, _COUNT_OUTSTANDING),
    (_DUE_AT,),
    (*_CLOCKS, _FINAL_UNLESS_DELETED),
    (_DELETED_OF_TENANT,),
    _OUTBOX,
)
"""Statements that lead from version n to n + 1. Only ever appended to: files of every released version exist."""


def migrate(connection: apsw.Connection, path: Path) -> None:
    """Bring the file to the newest version, each step in a transaction. Raises Misconfigured for a newer file."""
    version = int(connection.pragma("user_version"))
    if version > len(MIGRATIONS):
        raise Misconfigured(
            f"{path} was written by a newer Forebay (schema {version}; this one knows up to {len(MIGRATIONS)}); "
            "install that version again, or choose another data folder (FOREBAY_DATA_DIR)"
        )
    for number, statements in enumerate(MIGRATIONS[version:], start=version + 1):
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in statements:
                connection.execute(statement)
            connection.pragma("user_version", number)
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
