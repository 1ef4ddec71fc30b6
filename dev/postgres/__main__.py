"""`make postgres`: one server for a person, until Ctrl-C. Its data stays in .postgres."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from dev.kafka.ports import HOST, is_free
from dev.postgres.programs import PostgresUnavailable, find_programs, version
from dev.postgres.server import Postgres
from dev.process import ServerFailed, interrupt_by_signals, until_interrupted

FOLDER = Path(__file__).resolve().parents[2] / ".postgres"
"""Ignored by git."""

DSN_FILE = FOLDER / "dsn"
"""With the password, for its owner only: so that a command line can name it."""

PORT = 5432
DATABASE = "forebay"

READY = """\
PostgreSQL {version} answers on {host}:{port} (ready after {took_s:.1f} s): reachable from this machine only.
  stop     Ctrl-C; what is in it stays
  data     {folder}, with the log of the server; delete the folder to start afresh
  dsn      {dsn}
           (also in {dsn_file}: FOREBAY_STORE=$(cat {dsn_file}))
  look     {psql} '{dsn}'
"""


def main() -> int:
    interrupt_by_signals()
    try:
        return run(int(os.environ.get("POSTGRES_PORT") or PORT))
    except KeyboardInterrupt:
        return 0
    except (PostgresUnavailable, ServerFailed) as error:
        print(f"postgres: {error}", file=sys.stderr)
        return 1


def run(port: int) -> int:
    programs = find_programs()
    found = version(programs)
    if not is_free(port):
        print(
            f"postgres: {HOST}:{port} is in use; another port: make postgres POSTGRES_PORT={port + 1}", file=sys.stderr
        )
        return 1
    server = Postgres(FOLDER, port=port)
    server.log_file.unlink(missing_ok=True)
    began = time.monotonic()
    with server:
        if not server.execute(f"SELECT FROM pg_database WHERE datname = '{DATABASE}'"):
            server.execute(f"CREATE DATABASE {DATABASE}")
        DSN_FILE.touch(mode=0o600)
        DSN_FILE.write_text(f"{server.dsn(DATABASE)}\n")
        took_s = time.monotonic() - began
        psql = programs / "psql"
        facts = {"version": found, "host": HOST, "port": port, "folder": FOLDER, "took_s": took_s}
        print(
            READY.format(
                psql=psql if psql.exists() else "psql",
                dsn=server.dsn(DATABASE),
                dsn_file=os.path.relpath(DSN_FILE),
                **facts,
            ),
            flush=True,
        )
        until_interrupted(server, "postgres")
    return 0


if __name__ == "__main__":
    sys.exit(main())
