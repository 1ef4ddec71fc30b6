"""What one would otherwise write: FastAPI and a task queue on Redis, as small as it can honestly be, and as fast as its
own settings make it. In an environment of its own (`make bench-peers`), since none of it is a dependency of ours."""
