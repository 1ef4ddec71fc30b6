"""Every setting of Forebay: type, unit, default and its reason; read once, at start, by `cli` and `assembly`.

Precedence: command line, then environment, then TOML file, then default.
"""

from forebay.settings.loading import environment_name, load_settings, option_name
from forebay.settings.meaning import Meaning
from forebay.settings.tree import Settings, meaning_of

__all__ = ["Meaning", "Settings", "environment_name", "load_settings", "meaning_of", "option_name"]
