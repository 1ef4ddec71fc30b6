"""The only place that knows which adapter meets which role. Settings in, a running service out."""

from forebay.assembly.service import ROLES, Addresses, run, serve

__all__ = ["ROLES", "Addresses", "run", "serve"]
