"""Forebay: asynchronous model inference. Clients get 202 and an id; the request waits durably; workers batch it."""

__version__ = "0.1.0"
