"""Issue A's goals: the whole service in one process on SQLite."""
