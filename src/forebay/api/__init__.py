"""HTTP in, jobs out; visible job state in, HTTP out. pydantic and HTTP statuses stay in this room.

`api.app` makes the public API, `api.admin` the operator's. They are imported where they are made: a process without the
API starts in half the time, and smaller, without FastAPI.
"""
