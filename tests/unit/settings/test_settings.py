from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from pydantic import ValidationError

from forebay.core.errors import Misconfigured
from forebay.settings import Settings, environment_name, load_settings, meaning_of, option_name


def mistakes(
    overrides: Mapping[str, object] | None = None, environ: Mapping[str, str] | None = None, cwd: Path = Path("/")
) -> list[str]:
    with pytest.raises(Misconfigured) as caught:
        load_settings(overrides or {}, environ or {}, cwd)
    return list(caught.value.mistakes)


def mistake(
    overrides: Mapping[str, object] | None = None, environ: Mapping[str, str] | None = None, cwd: Path = Path("/")
) -> str:
    [one] = mistakes(overrides, environ, cwd)
    return one


def test_nothing_given_leaves_the_defaults(tmp_path: Path) -> None:
    settings = load_settings({}, {}, tmp_path)
    assert (settings.host, settings.port, settings.admin_port) == ("127.0.0.1", 8000, 9464)
    assert settings.data_dir == tmp_path / ".forebay"
    assert settings.models_dir == tmp_path / "models"
    assert (settings.queue, settings.store, settings.blobs) == ("sqlite://", "sqlite://", "files://")
    assert settings.worker_id.endswith(f"-{os.getpid()}")


def test_command_line_goes_before_environment_before_file_before_default(tmp_path: Path) -> None:
    (tmp_path / "forebay.toml").write_text('port = 1\nadmin_port = 1\nlog_level = "debug"\n')
    settings = load_settings({"port": "3"}, {"FOREBAY_PORT": "2", "FOREBAY_ADMIN_PORT": "2"}, tmp_path)
    assert (settings.port, settings.admin_port, settings.log_level, settings.host) == (3, 2, "debug", "127.0.0.1")


def test_the_file_is_named_by_the_command_line_or_the_environment(tmp_path: Path) -> None:
    for number, name in ((1, "forebay.toml"), (2, "a.toml"), (3, "b.toml")):
        (tmp_path / name).write_text(f"port = {number}\n")
    assert load_settings({}, {}, tmp_path).port == 1
    assert load_settings({}, {"FOREBAY_CONFIG": "a.toml"}, tmp_path).port == 2
    assert load_settings({"config": "b.toml"}, {"FOREBAY_CONFIG": "a.toml"}, tmp_path).port == 3


def test_a_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    text = mistake({"config": "gone.toml"}, {}, tmp_path)
    assert text == f"config [FOREBAY_CONFIG, --config]: {tmp_path}/gone.toml cannot be read: No such file or directory"


def test_a_file_that_is_no_toml_is_a_mistake_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "forebay.toml").write_text("port = = 3\n")
    text = mistake({}, {}, tmp_path)
    assert text.startswith(f"config [FOREBAY_CONFIG, --config]: {tmp_path}/forebay.toml is not TOML: ")
    assert "line 1" in text


def test_every_type_can_be_read_from_the_environment(tmp_path: Path) -> None:
    settings = load_settings(
        {},
        {
            "FOREBAY_PORT": "9000",
            "FOREBAY_ALLOW_UNAUTHENTICATED": "TRUE",
            "FOREBAY_SHUTDOWN_GRACE_S": "2.5",
            "FOREBAY_TRUSTED_MODELS": "one, two,",
            "FOREBAY_DATA_DIR": "/var/lib/forebay",
            "FOREBAY_SYNCHRONOUS": "full",
            "FOREBAY_SECRETS": "0123456789abcdef,fedcba9876543210",
        },
        tmp_path,
    )
    assert settings.port == 9000
    assert settings.allow_unauthenticated is True
    assert settings.shutdown_grace_s == 2.5
    assert settings.trusted_models == ("one", "two")
    assert settings.data_dir == Path("/var/lib/forebay")
    assert settings.synchronous == "full"
    assert settings.secret_bytes == (b"0123456789abcdef", b"fedcba9876543210")


def test_every_type_can_be_read_from_the_file(tmp_path: Path) -> None:
    (tmp_path / "forebay.toml").write_text(
        'port = 9000\nallow_unauthenticated = true\nload_timeout_s = 10\ntrusted_models = ["one"]\n'
        'data_dir = "d"\nsecrets = ["0123456789abcdef"]\n'
    )
    settings = load_settings({}, {}, tmp_path)
    assert (settings.port, settings.allow_unauthenticated, settings.load_timeout_s) == (9000, True, 10.0)
    assert settings.trusted_models == ("one",)
    assert settings.data_dir == tmp_path / "d"
    assert settings.secret_bytes == (b"0123456789abcdef",)


def test_a_log_level_may_be_given_in_any_case(tmp_path: Path) -> None:
    assert load_settings({}, {"FOREBAY_LOG_LEVEL": "WARNING"}, tmp_path).log_level == "warning"
    (tmp_path / "forebay.toml").write_text('log_level = "Debug"\n')
    assert load_settings({}, {}, tmp_path).log_level == "debug"


def test_an_empty_variable_counts_as_none(tmp_path: Path) -> None:
    assert load_settings({}, {"FOREBAY_PORT": "", "FOREBAY_TRUSTED_MODELS": ""}, tmp_path).port == 8000


def test_other_variables_are_left_alone(tmp_path: Path) -> None:
    environ = {"PATH": "/bin", "FOREBAY_URL": "http://elsewhere", "FOREBAYS": "x"}
    assert load_settings({}, environ, tmp_path) == load_settings({"worker_id": None}, {}, tmp_path)


def test_a_mistake_says_key_value_place_and_what_is_expected() -> None:
    text = mistake(environ={"FOREBAY_PORT": "http"})
    assert text == "port [FOREBAY_PORT, --port]: got 'http' from the environment, expected a whole number, 0 to 65535"


def test_a_mistake_names_the_file_it_stands_in(tmp_path: Path) -> None:
    (tmp_path / "forebay.toml").write_text('port = "8000"\n')
    assert f"got '8000' from {tmp_path}/forebay.toml" in mistake({}, {}, tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", "65536"),
        ("port", "-1"),
        ("port", "8000.0"),
        ("port", "٣"),
        ("allow_unauthenticated", "yes"),
        ("allow_unauthenticated", "1"),
        ("shutdown_grace_s", "0"),
        ("shutdown_grace_s", "nan"),
        ("shutdown_grace_s", "inf"),
        ("shutdown_grace_s", "25s"),
        ("synchronous", "FULL"),
        ("inline_limit_bytes", "256KiB"),
        ("max_body_bytes", "-1"),
        ("secrets", "short"),
        ("log_level", "trace"),
        ("crash_at", "worker.begun"),
        ("crash_at", "worker.begun:0"),
    ],
)
def test_what_does_not_fit_is_refused(name: str, value: str) -> None:
    text = mistake(environ={environment_name(name): value})
    assert text.startswith(f"{name} [")
    assert meaning_of(name).expected in text


@pytest.mark.parametrize(
    ("name", "toml"), [("port", "true"), ("allow_unauthenticated", "1"), ("trusted_models", '"a"'), ("host", "1")]
)
def test_a_value_of_another_type_in_the_file_is_refused(name: str, toml: str, tmp_path: Path) -> None:
    (tmp_path / "forebay.toml").write_text(f"{name} = {toml}\n")
    assert mistake({}, {}, tmp_path).startswith(f"{name} [")


def test_all_mistakes_are_listed_at_once(tmp_path: Path) -> None:
    (tmp_path / "forebay.toml").write_text('prot = 1\nlog_level = "loud"\n')
    found = mistakes({"port": "x"}, {"FOREBAY_DATADIR": "x", "FOREBAY_SYNCHRONOUS": "x"}, tmp_path)
    assert sorted(text.split()[0].rstrip(":") for text in found) == [
        "FOREBAY_DATADIR",
        "log_level",
        "port",
        "prot",
        "synchronous",
    ]


def test_the_message_holds_every_mistake() -> None:
    with pytest.raises(Misconfigured, match=r"(?s)^2 settings are wrong:\n  - port .*\n  - log_level "):
        load_settings({"port": "x", "log_level": "x"}, {}, Path("/"))


def test_an_unknown_variable_is_a_mistake_with_a_hint() -> None:
    assert (
        mistake(environ={"FOREBAY_DATADIR": "x"}) == "FOREBAY_DATADIR: no such setting; did you mean FOREBAY_DATA_DIR?"
    )
    assert mistake(environ={"FOREBAY_QWERTZ": "x"}) == "FOREBAY_QWERTZ: no such setting"


def test_an_unknown_key_is_a_mistake_with_a_hint(tmp_path: Path) -> None:
    (tmp_path / "forebay.toml").write_text("prot = 1\n")
    assert mistake({}, {}, tmp_path) == f"prot: no such setting, in {tmp_path}/forebay.toml; did you mean port?"


def test_what_kubernetes_sets_beside_a_service_of_our_name_is_no_unknown_variable(tmp_path: Path) -> None:
    environ = {"FOREBAY_SERVICE_HOST": "10.0.0.1", "FOREBAY_SERVICE_PORT_HTTP": "80", "FOREBAY_PORT_80_TCP": "tcp://x"}
    assert load_settings({}, environ, tmp_path).port == 8000


def test_a_port_from_kubernetes_is_told_apart_from_a_typing_mistake() -> None:
    assert "enableServiceLinks: false" in mistake(environ={"FOREBAY_PORT": "tcp://10.0.0.1:80"})


def test_a_secret_is_never_shown(tmp_path: Path) -> None:
    text = mistake(environ={"FOREBAY_SECRETS": "tooshort"})
    assert "tooshort" not in text
    assert "a value not shown" in text
    secret = "0123456789abcdef"
    assert secret not in repr(load_settings({}, {"FOREBAY_SECRETS": secret}, tmp_path))


def test_a_password_in_an_address_is_never_shown() -> None:
    text = mistake(environ={"FOREBAY_QUEUE": "kafka://user:password@broker"})
    assert "password" not in text
    assert "kafka://***@broker" in text


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("store", "postgres://db/forebay", "write postgresql://"),
        ("blobs", "https://minio/bucket", "name a bucket, as in s3://BUCKET, and the endpoint in AWS_ENDPOINT_URL"),
        ("queue", "sqlite:///tmp/x.db", "it takes no path: the files lie in data_dir"),
    ],
)
def test_a_backend_that_is_not_there_is_refused_with_the_reason(name: str, value: str, why: str) -> None:
    assert mistake({name: value}).endswith(f"; {why}")


def test_a_store_that_forgets_what_its_queue_keeps_is_refused() -> None:
    told = mistake({"store": "memory://"})
    assert told.startswith("store [")
    assert "leave it out, or set queue to memory:// too" in told


def test_a_store_that_outlives_its_queue_is_refused() -> None:
    assert mistake({"queue": "memory://"}).startswith("store [")


def test_blobs_that_are_forgotten_before_their_queue_are_refused() -> None:
    assert mistake({"blobs": "memory://"}).startswith("blobs [")


def test_a_wrong_setting_is_not_blamed_for_a_contradiction_too() -> None:
    assert len(mistakes({"queue": "memory://", "store": "nonsense"})) == 1


KAFKA = {"queue": "kafka://one:9092,two", "blobs": "s3://bucket"}


def test_brokers_have_kafkas_usual_port_unless_they_name_one(tmp_path: Path) -> None:
    assert load_settings(KAFKA, {}, tmp_path).kafka_bootstrap == "one:9092,two:9092"


@pytest.mark.parametrize("changes", [{"kafka_max_poll_interval_s": "9"}, {"kafka_drain_s": "296"}], ids=str)
def test_the_time_between_polls_has_room_for_what_a_partition_that_goes_waits_for(changes: dict[str, str]) -> None:
    text = mistake({**KAFKA, **changes})
    assert text.startswith("kafka_max_poll_interval_s")
    assert "make it at least" in text


def test_the_time_between_polls_and_the_drain_may_be_short_together(tmp_path: Path) -> None:
    short = {"kafka_max_poll_interval_s": "7", "kafka_drain_s": "1"}
    assert load_settings({**KAFKA, **short}, {}, tmp_path).kafka_drain_s == 1.0


def test_a_folder_of_blobs_must_be_declared_shared_with_kafka(tmp_path: Path) -> None:
    here = {**KAFKA, "blobs": "files:///blobs"}
    assert "blobs_shared [FOREBAY_BLOBS_SHARED, --blobs-shared]" in mistake(here)
    assert load_settings({**here, "blobs_shared": "true"}, {}, tmp_path).blobs == "files:///blobs"


def test_a_login_that_lacks_something_is_told_of_all_that_is_missing() -> None:
    told = mistakes({**KAFKA, "kafka_security": "sasl_ssl"})
    assert [text.split(" ")[0] for text in told] == ["kafka_username", "kafka_password"]
    oauth = mistakes({**KAFKA, "kafka_security": "sasl_ssl", "kafka_sasl_mechanism": "OAUTHBEARER"})
    assert [text.split(" ")[0] for text in oauth] == [
        "kafka_oauth_token_url",
        "kafka_oauth_client_id",
        "kafka_oauth_client_secret",
    ]


def test_a_login_that_would_not_be_used_is_refused() -> None:
    assert "does not log in" in mistake({**KAFKA, "kafka_username": "ada"})


def test_a_password_is_read_from_the_environment_and_never_shown(tmp_path: Path) -> None:
    environ = {"FOREBAY_KAFKA_PASSWORD": "hush", "FOREBAY_KAFKA_USERNAME": "ada", "FOREBAY_KAFKA_SECURITY": "sasl_ssl"}
    settings = load_settings(KAFKA, environ, tmp_path)
    assert settings.kafka_password.get_secret_value() == "hush"
    assert "hush" not in repr(settings)


def test_settings_cannot_be_changed(tmp_path: Path) -> None:
    settings = load_settings({}, {}, tmp_path)
    with pytest.raises(ValidationError):
        settings.port = 1  # type: ignore[misc]  # which is what is tested


def test_every_setting_has_a_meaning_and_a_reason() -> None:
    for name in Settings.model_fields:
        meaning = meaning_of(name)
        assert meaning.text.endswith("."), name
        assert meaning.reason.endswith("."), name
        assert meaning.expected, name


def test_names_of_a_setting_follow_from_its_field() -> None:
    assert (environment_name("data_dir"), option_name("data_dir")) == ("FOREBAY_DATA_DIR", "--data-dir")


def test_a_job_lives_for_a_third_of_what_topics_keep_at_most() -> None:
    assert mistake({**KAFKA, "max_life_s": "201601.0"}).startswith("max_life_s")
    assert mistake({**KAFKA, "kafka_retention_s": "259199.0"}).startswith("max_life_s")


def test_without_kafka_a_job_may_live_for_as_long_as_is_wanted(tmp_path: Path) -> None:
    assert load_settings({"max_life_s": "9999999.0"}, {}, tmp_path).longest_retain_s == 6 * 86_400.0


def test_a_job_is_kept_no_longer_than_the_log_reaches(tmp_path: Path) -> None:
    short = {**KAFKA, "kafka_retention_s": "259200.0"}
    assert load_settings(short, {}, tmp_path).longest_retain_s == 2 * 86_400.0
    assert mistake({**short, "retain_s": "172801.0"}).startswith("retain_s")


@pytest.mark.parametrize("retain_s", ["59.0", "518401.0"])
def test_how_long_jobs_are_kept_is_within_what_may_be_asked_for(retain_s: str) -> None:
    assert mistake({"retain_s": retain_s}).startswith("retain_s")


def test_numbers_in_a_list_are_read_as_numbers(tmp_path: Path) -> None:
    assert load_settings({"webhook_ports": "443, 8443"}, {}, tmp_path).webhook_ports == (443, 8443)
    (tmp_path / "forebay.toml").write_text("webhook_ports = [8443]\n")
    assert load_settings({}, {}, tmp_path).webhook_ports == (8443,)
    (tmp_path / "forebay.toml").write_text('webhook_ports = ["8443"]\n')
    assert "webhook_ports" in mistake(cwd=tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("webhook_allow_networks", "10.0.0.1/8"),
        ("webhook_allow_networks", "10.0.0.0/33"),
        ("webhook_allow_networks", "receiver.test"),
        ("webhook_http_hosts", "receiver.test:80"),
        ("webhook_http_hosts", "http://receiver.test"),
        ("webhook_http_hosts", "[::1]"),
        ("webhook_ports", "0"),
        ("webhook_ports", "65536"),
        ("webhook_ports", "https"),
        ("webhook_timeout_s", "0"),
    ],
)
def test_a_wrong_place_for_webhooks_stops_the_start(name: str, value: str) -> None:
    assert environment_name(name) in mistake(environ={environment_name(name): value})
