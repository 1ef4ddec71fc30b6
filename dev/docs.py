"""Writes docs/settings.md, docs/metrics.md and the tables of docs/kafka.md from the code they describe: `make docs`.

A test fails while a committed page differs from what this would write.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from prometheus_client import Counter, Gauge, Histogram

from forebay.adapters.kafka.acls import Role, acls
from forebay.adapters.kafka.layout import TopicWishes, desired
from forebay.adapters.kafka.names import Names
from forebay.settings import Settings, environment_name, meaning_of, option_name
from forebay.telemetry.metrics import Metrics

DOCS = Path(__file__).parent.parent / "docs"

MODEL = "MODEL"
TOLD = ("cleanup.policy", "retention.ms", "segment.ms")
"""The settings in which topics differ."""

SETTINGS_HEAD = """\
# Settings

<!-- Written by dev/docs.py (make docs) from src/forebay/settings/. Change that, not this. -->

Every setting can be given in four places. The first that gives it counts:

1. on the command line: `forebay up --port 8080`;
2. in the environment: `FOREBAY_PORT=8080`; an empty variable counts as none;
3. in a TOML file: `port = 8080` in `./forebay.toml`, or in the file that `--config` or `FOREBAY_CONFIG` names;
4. nowhere: then the default below holds.

Lists are separated by commas on the command line and in the environment (`FOREBAY_TRUSTED_MODELS=a,b`) and are
lists in the file (`trusted_models = ["a", "b"]`). Booleans are `true` and `false`. Wrong settings stop the start, all
mistakes listed at once; unknown keys and unknown `FOREBAY_*` variables are mistakes too.

`FOREBAY_URL` is no setting of the service: it tells `forebay submit`, `jobs` and `models` where one is. Without it (and
without `--url`) they ask the service that runs on their `data_dir`, which leaves its address in `address.json` there
while it runs; if none does, the address that `host` and `port` say.
"""

METRICS_HEAD = """\
# Metrics

<!-- Written by dev/docs.py (make docs) from src/forebay/telemetry/metrics.py. Change that, not this. -->

Prometheus reads them at `/metrics` on the admin port (setting `admin_port`, 9464). Units are base units and stand in
the name; counters end in `_total`. Labels are bounded: models, lanes, states and codes, never ids or texts.

| Metric | Kind | Labels | Meaning |
|---|---|---|---|
"""


def settings_page() -> str:
    return SETTINGS_HEAD + "".join(_section(name) for name in Settings.model_fields if not meaning_of(name).hidden)


def _section(name: str) -> str:
    meaning = meaning_of(name)
    default = meaning.shown_default or f"`{_toml(Settings.model_fields[name].get_default())}`"
    option = "none, since it is secret" if meaning.secret else f"`{option_name(name)}`"
    return f"""
## `{name}`

{meaning.text}

- Takes: {meaning.expected}
- Default: {default}. {meaning.reason}
- Environment: `{environment_name(name)}`; option: {option}
"""


def metrics_page() -> str:
    rows = []
    for metric in vars(Metrics()).values():
        if isinstance(metric, Counter | Gauge | Histogram):
            [family] = metric.describe()
            name = f"{family.name}_total" if family.type == "counter" else family.name
            labels = ", ".join(f"`{label}`" for label in metric._labelnames) or "none"
            rows.append(f"| `{name}` | {family.type} | {labels} | {family.documentation} |\n")
    return METRICS_HEAD + "".join(rows)


def kafka_page() -> str:
    """The page as it is, with its tables written anew."""
    page = (DOCS / "kafka.md").read_text(encoding="utf-8")
    for name, table in (("topics", _topics_table()), ("acls", _acls_table())):
        head = f"<!-- {name}: by make docs -->\n"
        before, after = page.split(head)
        page = before + head + table + after[after.index("<!-- end -->") :]
    return page


def _topics_table() -> str:
    rows = ["| topic | partitions | copies | settings |\n|---|---|---|---|\n"]
    for topic in desired(Names(), [MODEL], TopicWishes(), brokers=3):
        if topic.name in {f"forebay.requests.{MODEL}.high", f"forebay.requests.{MODEL}.low"}:
            continue
        name = topic.name.replace(f"{MODEL}.normal", "<model>.<lane>")
        settings = ", ".join(f"`{key}={topic.config[key]}`" for key in TOLD if key in topic.config)
        rows.append(f"| `{name}` | {topic.partitions} | {topic.replication} | {settings} |\n")
    common = {key: value for key, value in topic.config.items() if key not in TOLD}
    rows.append(f"\nAll of them: {', '.join(f'`{key}={value}`' for key, value in sorted(common.items()))}.\n")
    return "".join(rows)


def _acls_table() -> str:
    rows = ["| role | on | may | because it |\n|---|---|---|---|\n"]
    for role in Role:
        for acl in acls(role, Names(), [MODEL]):
            name = acl.name.replace(MODEL, "<model>") + ("*" if acl.prefixed else "")
            rows.append(f"| {role.value} | {acl.resource} `{name}` | {', '.join(acl.operations)} | {acl.why} |\n")
    return "".join(rows)


PAGES: Mapping[str, Callable[[], str]] = {
    "settings.md": settings_page,
    "metrics.md": metrics_page,
    "kafka.md": kafka_page,
}


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return f"{value:g}" if isinstance(value, float) else str(value)
    if isinstance(value, tuple):
        return f"[{', '.join(_toml(one) for one in value)}]"
    return f'"{value}"'


def main() -> None:
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")
        sys.stdout.write(f"docs/{name}\n")


if __name__ == "__main__":
    main()
