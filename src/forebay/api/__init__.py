"""HTTP in, jobs out; visible job state in, HTTP out. pydantic and HTTP statuses stay in this room."""

from forebay.api.admin import build_admin_app
from forebay.api.app import build_app

__all__ = ["build_admin_app", "build_app"]
