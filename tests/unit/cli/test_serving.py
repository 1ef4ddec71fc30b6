from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection
from pathlib import Path

import pytest
from tests.unit.cli.conftest import Ran

from forebay import assembly
from forebay.adapters.kafka import acls
from forebay.assembly import Addresses
from forebay.cli.address import address_in
from forebay.cli.serving import Role
from forebay.cli.topics import AclRole
from forebay.core.model import ModelStatus
from forebay.ports.fleet import ModelReport
from forebay.settings import Settings

Forebay = Callable[..., Ran]
MODELS = Path(__file__).parents[3] / "models"


def report(model: str, status: ModelStatus = ModelStatus.READY, reason: str = "") -> ModelReport:
    return ModelReport(worker="w", model=model, version="1", status=status, reason=reason)


class FakeAssembly:
    """Is ready at once and stops at once."""

    def __init__(self) -> None:
        self.settings: Settings | None = None
        self.roles: Collection[str] = ()
        self.api_url = "http://127.0.0.1:8000"
        self.reports = [report("image_classification"), report("text_classification")]

    def run(
        self,
        settings: Settings,
        roles: Collection[str],
        *,
        on_ready: Callable[[Addresses], None],
        on_stop: Callable[[], None],
    ) -> None:
        self.settings, self.roles = settings, roles
        on_ready(
            Addresses(
                api_url=self.api_url,
                admin_url="http://127.0.0.1:9464",
                data_dir=settings.data_dir,
                durability="process",
                models=self.reports,
            )
        )
        on_stop()


@pytest.fixture
def fake_assembly(monkeypatch: pytest.MonkeyPatch) -> FakeAssembly:
    made = FakeAssembly()
    monkeypatch.setattr(assembly, "run", made.run)
    monkeypatch.setattr("forebay.telemetry.logs.configure_logs", lambda level, form: None)
    return made


def up(forebay: Forebay, *arguments: str) -> str:
    ran = forebay("up", "--models-dir", str(MODELS), *arguments)
    assert ran.code == 0, ran.err
    return ran.out


def test_up_runs_every_role_with_the_settings_given(
    fake_assembly: FakeAssembly, forebay: Forebay, tmp_path: Path
) -> None:
    up(forebay, "--port", "9000", "--synchronous", "full", "--allow-unauthenticated", "--trusted-models", "a,b")
    settings = fake_assembly.settings
    assert settings is not None
    assert list(fake_assembly.roles) == ["api", "worker", "projector", "scheduler", "webhooks"]
    assert (settings.port, settings.synchronous, settings.allow_unauthenticated) == (9000, "full", True)
    assert (settings.trusted_models, settings.data_dir) == (("a", "b"), tmp_path / ".forebay")


def test_up_tells_where_everything_is(fake_assembly: FakeAssembly, forebay: Forebay) -> None:
    out = up(forebay)
    for words in (
        ".forebay (delete it to start anew)",
        "sqlite://, durability process: an accepted job survives a crash, not a power cut",
        "image_classification 1 ready",
        "text_classification 1 ready",
        "http://127.0.0.1:8000/docs",
        "http://127.0.0.1:9464/metrics",
        "a second Ctrl-C kills",
        "stopped",
    ):
        assert words in out


def test_the_lines_to_paste_prefer_a_text_model(fake_assembly: FakeAssembly, forebay: Forebay) -> None:
    lines = [line.strip() for line in up(forebay).splitlines()]
    assert "forebay submit text_classification 'What a lovely day'" in lines
    assert (
        "curl -s 'http://127.0.0.1:8000/v1/models/text_classification/jobs' -H 'prefer: wait=10' "
        "-H 'content-type: text/plain' -d 'What a lovely day'"
    ) in lines


def test_the_line_to_paste_names_an_address_that_is_not_the_usual(
    fake_assembly: FakeAssembly, forebay: Forebay
) -> None:
    fake_assembly.api_url = "http://127.0.0.1:4711"
    assert "forebay submit text_classification 'What a lovely day' --url http://127.0.0.1:4711\n" in up(forebay)


def test_a_photo_is_offered_only_if_there_is_one(
    fake_assembly: FakeAssembly, forebay: Forebay, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_assembly.reports = [report("image_classification")]
    assert "Try it" not in up(forebay)
    monkeypatch.chdir(MODELS.parent)
    out = up(forebay, "--config", os.devnull)
    assert "forebay submit image_classification examples/samples/cat.jpg" in out
    assert "--data-binary @examples/samples/cat.jpg" in out


def test_a_model_that_is_unavailable_is_told_with_the_reason_and_not_offered(
    fake_assembly: FakeAssembly, forebay: Forebay
) -> None:
    fake_assembly.reports = [report("text_classification", ModelStatus.UNAVAILABLE, "model.onnx is cut short")]
    out = up(forebay)
    assert "text_classification 1 unavailable: model.onnx is cut short" in out
    assert "Try it" not in out


def test_a_model_that_cannot_be_described_is_told_with_the_reason(
    fake_assembly: FakeAssembly, forebay: Forebay, tmp_path: Path
) -> None:
    (tmp_path / "models" / "broken" / "1").mkdir(parents=True)
    (tmp_path / "models" / "shout" / "1").mkdir(parents=True)
    (tmp_path / "models" / "shout" / "1" / "model.py").touch()
    fake_assembly.reports = []
    out = forebay("up").out
    assert "  models   broken unavailable: broken/1: holds no model" in out
    assert "           shout unavailable: shout/1: untrusted_model: " in out
    assert "shout" not in forebay("up", "--models", "broken").out
    assert "in part" not in out


def test_a_version_that_cannot_be_described_is_told_beside_the_one_that_is_served(
    fake_assembly: FakeAssembly, forebay: Forebay, tmp_path: Path
) -> None:
    for version in ("1", "2"):
        (tmp_path / "models" / "shout" / version).mkdir(parents=True)
    (tmp_path / "models" / "shout" / "1" / "model.py").touch()
    fake_assembly.reports = [report("shout")]
    out = forebay("up", "--trusted-models", "shout").out
    assert "  models   shout 1 ready\n           shout in part unavailable: shout/2: holds no model" in out


def test_a_trusted_name_that_is_no_model_is_told_with_those_that_are(
    fake_assembly: FakeAssembly, forebay: Forebay
) -> None:
    out = up(forebay, "--trusted-models", "text_clasification,text_classification")
    assert (
        "  warning  'text_clasification' in trusted_models (FOREBAY_TRUSTED_MODELS) is no model here "
        "(there: image_classification, text_classification); did you mean 'text_classification'?\n"
    ) in out
    assert out.count("warning") == 1


def test_a_stop_says_how_long_it_may_take(fake_assembly: FakeAssembly, forebay: Forebay) -> None:
    assert "for at most 2.5 s (shutdown_grace_s); a second Ctrl-C kills" in up(forebay, "--shutdown-grace-s", "2.5")


def test_the_lines_to_paste_name_the_program_as_it_was_run(
    fake_assembly: FakeAssembly, forebay: Forebay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", [str(tmp_path / ".venv" / "bin" / "forebay"), "up"])
    assert "  .venv/bin/forebay submit text_classification 'What a lovely day'\n" in up(forebay)


def test_the_address_stays_in_the_data_folder_while_the_service_runs(
    fake_assembly: FakeAssembly, forebay: Forebay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    monkeypatch.setattr("forebay.cli.banner.print_banner", lambda *args: seen.append(address_in(tmp_path / "data")))
    (tmp_path / "data").mkdir()
    up(forebay, "--data-dir", "data")
    assert seen == ["http://127.0.0.1:8000"]
    assert list((tmp_path / "data").iterdir()) == []


def test_the_ready_file_says_where_the_service_is(
    fake_assembly: FakeAssembly, forebay: Forebay, tmp_path: Path
) -> None:
    up(forebay, "--ready-file", "ready.json")
    ready = json.loads((tmp_path / "ready.json").read_text())
    assert (ready["api_url"], ready["admin_url"]) == ("http://127.0.0.1:8000", "http://127.0.0.1:9464")
    assert ready["pid"] == os.getpid()
    assert ready["models"][0] == {"name": "image_classification", "version": "1", "status": "ready", "reason": ""}
    assert [file.name for file in tmp_path.iterdir()] == ["ready.json"]


def test_run_runs_the_roles_named(fake_assembly: FakeAssembly, forebay: Forebay) -> None:
    fake_assembly.api_url = ""
    ran = forebay("run", "worker", "projector", "--models", "a")
    assert ran.code == 0
    assert list(fake_assembly.roles) == ["worker", "projector"]
    assert fake_assembly.settings is not None
    assert fake_assembly.settings.models == ("a",)
    assert "worker, projector ready" in ran.out


def test_wrong_settings_are_told_in_one_message_without_a_traceback(
    fake_assembly: FakeAssembly, forebay: Forebay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOREBAY_LOGLEVEL", "info")
    ran = forebay("up", "--port", "http", "--log-format", "xml")
    assert (ran.code, ran.out, fake_assembly.settings) == (1, "", None)
    assert ran.err.startswith("forebay: 3 settings are wrong:\n  - FOREBAY_LOGLEVEL: ")
    assert ran.err.count("\n") == 4


def test_the_roles_are_those_of_the_service_and_for_rights_the_administrator_too() -> None:
    assert tuple(Role) == assembly.ROLES
    assert [role.value for role in acls.Role] == [*assembly.ROLES, "admin"] == [role.value for role in AclRole]
