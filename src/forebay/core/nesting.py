"""How deep a JSON value is."""

from __future__ import annotations

from typing import Any

MAX_DEPTH = 100
"""Arrays and objects within each other, in whatever comes from outside. Tensors need 8 or so; what walks a value
recursively is safe below this."""


def is_deeper(value: Any, most: int) -> bool:
    """Whether more than `most` arrays and objects stand within each other. Level by level, so that this needs no depth
    itself."""
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(most):
        level = [
            child
            for parent in level
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, (dict, list))
        ]
        if not level:
            return False
    return bool(level)
