"""Reading the settings from where they are given, and saying all that is wrong with them at once.

pydantic checks the values; where they come from is ours to know, so that a mistake can name its place.
docs/decisions/settings.md says why pydantic-settings is not used.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from msgspec import Struct
from pydantic import SecretStr, ValidationError

from forebay.core.errors import Misconfigured
from forebay.settings.tree import Settings, meaning_of

PREFIX = "FOREBAY_"
DEFAULT_FILE = "forebay.toml"

NOT_SETTINGS = frozenset({"FOREBAY_API_KEY", "FOREBAY_CONFIG", "FOREBAY_URL"})
"""Read by the command line only: which file, and which service a client command talks to."""

KUBERNETES_LINK = re.compile(r"FOREBAY_(SERVICE_(HOST|PORT)|PORT_\d+_)")
"""What Kubernetes puts into every pod beside a Service named `forebay`. Nobody wrote them, so they are no mistakes."""

PLACES = ("queue", "store", "blobs")
"""Settings whose values are addresses."""

HELD_UP_S = 5.0
"""For the last commit of a partition that goes, which is tried for 3 s."""

MISTAKEN = {
    "postgres": "write postgresql://",
    "http": "name a bucket, as in s3://BUCKET, and the endpoint in AWS_ENDPOINT_URL",
    "https": "name a bucket, as in s3://BUCKET, and the endpoint in AWS_ENDPOINT_URL",
}


class Given(Struct, frozen=True):
    """A value and where it came from. `text` is true for what arrived as text and has yet to be read as its type."""

    value: object
    place: str
    text: bool


def environment_name(name: str) -> str:
    """`data_dir` -> `FOREBAY_DATA_DIR`"""
    return PREFIX + name.upper()


def option_name(name: str) -> str:
    """`data_dir` -> `--data-dir`"""
    return "--" + name.replace("_", "-")


def load_settings(overrides: Mapping[str, object], environ: Mapping[str, str], cwd: Path) -> Settings:
    """The settings that hold, with absolute folders.

    `overrides` come from the command line, by field name (`config` names the TOML file); None means not given, text is
    read as the environment's is. Raises Misconfigured with every mistake there is.
    """
    mistakes: list[str] = []
    given: dict[str, Given] = {}
    for source in (_file(overrides, environ, cwd, mistakes), _environment(environ, mistakes), _overrides(overrides)):
        given.update(source)
    known = {name: entry for name, entry in given.items() if name in Settings.model_fields}
    mistakes += [_unknown(name, entry) for name, entry in given.items() if name not in known]
    values = {name: _read(name, entry) for name, entry in known.items()}
    wrong: dict[str, None] = {}
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        wrong = dict.fromkeys(str(one["loc"][0]) for one in error.errors())
        mistakes += [_wrong(name, known[name]) for name in wrong]
        settings = Settings.model_validate({name: value for name, value in values.items() if name not in wrong})
    mistakes += [text for names, text in _contradictions(settings) if not wrong.keys() & names]
    if mistakes:
        count = "a setting is wrong" if len(mistakes) == 1 else f"{len(mistakes)} settings are wrong"
        raise Misconfigured(f"{count}:", mistakes=mistakes)
    return settings.model_copy(
        update={"data_dir": cwd / settings.data_dir.expanduser(), "models_dir": cwd / settings.models_dir.expanduser()}
    )


def _overrides(overrides: Mapping[str, object]) -> dict[str, Given]:
    return {
        name: Given(value, "the command line", isinstance(value, str))
        for name, value in overrides.items()
        if value is not None and name != "config"
    }


def _environment(environ: Mapping[str, str], mistakes: list[str]) -> dict[str, Given]:
    """An empty variable counts as none: that is how Compose and shells hand on what was not given."""
    given = {}
    names = {environment_name(name): name for name in Settings.model_fields}
    for variable, value in environ.items():
        if not variable.startswith(PREFIX) or variable in NOT_SETTINGS or KUBERNETES_LINK.match(variable) or not value:
            continue
        if variable in names:
            given[names[variable]] = Given(value, "the environment", True)
        else:
            mistakes.append(f"{variable}: no such setting{_did_you_mean(variable, [*names, *NOT_SETTINGS], PREFIX)}")
    return given


def _file(
    overrides: Mapping[str, object], environ: Mapping[str, str], cwd: Path, mistakes: list[str]
) -> dict[str, Given]:
    named = overrides.get("config") or environ.get("FOREBAY_CONFIG")
    path = cwd / Path(str(named or DEFAULT_FILE)).expanduser()
    if not named and not path.exists():
        return {}
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        mistakes.append(f"config [FOREBAY_CONFIG, --config]: {path} cannot be read: {error.strerror}")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        mistakes.append(f"config [FOREBAY_CONFIG, --config]: {path} is not TOML: {error}")
    else:
        return {name: Given(value, str(path), False) for name, value in table.items()}
    return {}


def _read(name: str, given: Given) -> object:
    """The value as the field's type where it can be read as such; as it came where not, for pydantic to refuse."""
    return _as(Settings.model_fields[name].annotation, given.value, text=given.text)


def _as(kind: Any, value: Any, *, text: bool) -> object:
    """Strict on purpose: `true` and `false` are the booleans, and `8000.0` is no port."""
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if get_origin(kind) is tuple:
        if text:
            value = [part.strip() for part in value.split(",") if part.strip()]
        if not isinstance(value, list | tuple):
            return value
        return tuple(_as(get_args(kind)[0], part, text=text) for part in value)
    if kind is SecretStr:
        return SecretStr(value) if isinstance(value, str) else value
    if kind is Path:
        return Path(value) if isinstance(value, str) and value else value
    if not text:
        return value
    if kind is bool:
        return {"true": True, "false": False}.get(value.lower(), value)
    if kind is int:
        return int(value) if re.fullmatch(r"[+-]?[0-9]+", value) else value
    if kind is float:
        return float(value) if re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)", value) else value
    return value


def _keys(name: str) -> str:
    """Every way to give the setting: its name is the key in the TOML file."""
    option = "" if meaning_of(name).secret else f", {option_name(name)}"
    return f"{name} [{environment_name(name)}{option}]"


def _wrong(name: str, given: Given) -> str:
    meaning = meaning_of(name)
    shown = "a value not shown" if meaning.secret else re.sub(r"//[^/@]*@", "//***@", repr(given.value))
    return f"{_keys(name)}: got {shown} from {given.place}, expected {meaning.expected}{_why_not(name, given.value)}"


def _why_not(name: str, value: object) -> str:
    if not isinstance(value, str):
        return ""
    if name == "port" and value.startswith(("tcp://", "udp://")):
        return (
            "; Kubernetes sets FOREBAY_PORT beside a Service named forebay: "
            "put enableServiceLinks: false into the pod's spec"
        )
    scheme, separator, rest = value.partition("://")
    if not separator or name not in PLACES:
        return ""
    if scheme in MISTAKEN:
        return f"; {MISTAKEN[scheme]}"
    return "; it takes no path: the files lie in data_dir" if rest and scheme == "sqlite" else ""


def _unknown(name: str, given: Given) -> str:
    return f"{name}: no such setting, in {given.place}{_did_you_mean(name, list(Settings.model_fields))}"


def _did_you_mean(name: str, known: list[str], prefix: str = "") -> str:
    """A prefix that all have would make everything alike."""
    close = get_close_matches(name.removeprefix(prefix), [one.removeprefix(prefix) for one in known], n=1)
    return f"; did you mean {prefix}{close[0]}?" if close else ""


def _contradictions(settings: Settings) -> Iterator[tuple[frozenset[str], str]]:
    """What no single setting can be blamed for, with the settings that it is about."""
    yield from _kafka_contradictions(settings)
    if not settings.min_retain_s <= settings.retain_s <= settings.longest_retain_s:
        yield (
            frozenset({"retain_s", "max_retain_s", "min_retain_s", "max_life_s", "kafka_retention_s", "queue"}),
            f"{_keys('retain_s')}: {settings.retain_s:g} s, and a job may be kept from {settings.min_retain_s:g} to "
            f"{settings.longest_retain_s:g} s; change it, or max_retain_s (with Kafka, kafka_retention_s less "
            "max_life_s bounds it too)",
        )
    if settings.queue == "memory://" and settings.store != "memory://":
        yield (
            frozenset({"queue", "store"}),
            f"{_keys('store')}: {settings.store} would remember positions in a queue that is forgotten at exit; "
            "with queue memory:// it must be memory:// too",
        )
    if settings.queue != "memory://" and settings.store == "memory://":
        yield (
            frozenset({"queue", "store"}),
            f"{_keys('store')}: memory:// would forget the states and results of jobs that {settings.queue} keeps; "
            "leave it out, or set queue to memory:// too",
        )
    if settings.queue != "memory://" and settings.blobs == "memory://":
        yield (
            frozenset({"queue", "blobs"}),
            f"{_keys('blobs')}: memory:// would lose the inputs of jobs that {settings.queue} keeps; "
            "use files://, or memory:// for both",
        )


def _kafka_contradictions(settings: Settings) -> Iterator[tuple[frozenset[str], str]]:
    if not settings.on_kafka:
        return
    if settings.blobs.startswith("files://") and not settings.blobs_shared:
        yield (
            frozenset({"queue", "blobs", "blobs_shared"}),
            f"{_keys('blobs')}: with Kafka the roles may be on several machines, and {settings.blobs} is a folder of "
            f"this one; set {_keys('blobs_shared')} to true if all of them see it (or all roles run here), or use an "
            "object store, such as s3://BUCKET",
        )
    if settings.max_life_s > settings.kafka_retention_s / 3:
        yield (
            frozenset({"max_life_s", "kafka_retention_s", "queue"}),
            f"{_keys('max_life_s')}: a job may live for {settings.max_life_s:g} s, and topics forget after "
            f"{settings.kafka_retention_s:g} s; make kafka_retention_s three times as long at least, or it shorter",
        )
    if settings.kafka_max_poll_interval_s < settings.kafka_drain_s + HELD_UP_S:
        yield (
            frozenset({"kafka_max_poll_interval_s", "kafka_drain_s"}),
            f"{_keys('kafka_max_poll_interval_s')}: a worker that lets partitions go does not poll for kafka_drain_s "
            f"({settings.kafka_drain_s:g} s) and its last commit, and would lose all of them; make it at least "
            f"{settings.kafka_drain_s + HELD_UP_S:g}, or kafka_drain_s shorter",
        )
    if settings.kafka_security.startswith("sasl"):
        for name in _login_of(settings.kafka_sasl_mechanism):
            value = getattr(settings, name)
            if not (value.get_secret_value() if isinstance(value, SecretStr) else value):
                yield (
                    frozenset({name, "kafka_security", "kafka_sasl_mechanism"}),
                    f"{_keys(name)}: needed to log in with {settings.kafka_sasl_mechanism}",
                )
    elif settings.kafka_username:
        yield (
            frozenset({"kafka_username", "kafka_security"}),
            f"{_keys('kafka_security')}: {settings.kafka_security} does not log in, and there is a kafka_username; "
            "set it to sasl_ssl (or sasl_plaintext)",
        )
    if bool(settings.kafka_certificate_file) != bool(settings.kafka_key_file):
        yield (
            frozenset({"kafka_certificate_file", "kafka_key_file"}),
            f"{_keys('kafka_certificate_file')}, {_keys('kafka_key_file')}: give both or neither",
        )


def _login_of(mechanism: str) -> tuple[str, ...]:
    if mechanism == "OAUTHBEARER":
        return ("kafka_oauth_token_url", "kafka_oauth_client_id", "kafka_oauth_client_secret")
    return ("kafka_username", "kafka_password")
