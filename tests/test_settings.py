from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from sync_worker.domain.entitlements import Placement
from sync_worker.errors import ConfigurationError
from sync_worker.runtime.environment import load_settings, load_valid_settings, unknown_settings

if TYPE_CHECKING:
    from pathlib import Path

    from sync_worker.settings import Settings

GIVEN = {"SANITY_PROJECT_ID": "p1", "SANITY_READ_TOKEN": "planted-token", "CLERK_SECRET_KEY": "sk_test_planted"}

EACH_SECRET = (
    "must have at least 16 characters in each of its secrets. Commas and spaces separate them, so a secret cannot "
    "contain one: generate it with `openssl rand -hex 32`"
)
QUOTED_SECRET = (
    "must be written without quotes and brackets. A secret cannot contain a comma, because commas separate several: "
    "generate it with `openssl rand -hex 32`"
)


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    def loaded(**environment: str) -> Settings:
        for name, value in {**GIVEN, **environment}.items():
            monkeypatch.setenv(name, value)
        return load_settings(_env_file=None)

    return loaded


def test_three_values_are_enough(load: Any) -> None:
    settings = load()
    assert settings.sanity_url == "https://p1.api.sanity.io"
    assert (settings.sanity_dataset, settings.database_url) == ("production", "sqlite:///sync-worker.db")


@pytest.mark.parametrize(("key", "budget"), [("sk_live_x", 300), ("sk_test_x", 90)])
def test_the_budget_leaves_room_for_the_app(load: Any, key: str, budget: int) -> None:
    assert load(CLERK_SECRET_KEY=key).budget == budget


def test_several_secrets_are_valid_during_rotation_and_are_stripped(load: Any) -> None:
    secrets = load(SANITY_WEBHOOK_SECRET=f" {'n' * 16} , {'o' * 16}\n{'p' * 16}").sanity_webhook_secret
    assert [secret.get_secret_value() for secret in secrets] == ["n" * 16, "o" * 16, "p" * 16]


def test_the_address_of_the_receiver_of_notices_is_a_secret(load: Any) -> None:
    settings = load(NOTIFY_URL="https://hooks.example.org/T1/a-token", NOTIFY_SECRET="whsec_c2VjcmV0LW9mLW5vdGljZXM=")
    assert {"https://hooks.example.org/T1/a-token", "whsec_c2VjcmV0LW9mLW5vdGljZXM="} <= set(settings.secrets)
    assert "a-token" not in repr(settings)


def test_trusted_proxies_are_addresses_and_networks(load: Any) -> None:
    assert load(TRUSTED_PROXIES="10.0.0.0/8, ::1").trusted_proxies == ("10.0.0.0/8", "::1")


@pytest.mark.parametrize("value", ["*", "0.0.0.0/0", "::/0", "proxy.example.org", "10.0.0.1/8"])
def test_a_proxy_that_could_be_anybody_is_refused(load: Any, value: str) -> None:
    with pytest.raises(ConfigurationError, match="TRUSTED_PROXIES must be addresses or networks of your proxies"):
        load(TRUSTED_PROXIES=value)


def test_the_managed_keys_follow_the_settings(load: Any) -> None:
    layout = load(
        PLAN_ORDER="free,pro", BASELINE_PLAN="free", EXTRA_FIELDS="features=union,step=latest", PRIVATE_FIELDS="role"
    ).layout
    fields = {field.name: field for field in layout.fields}
    assert list(fields) == ["plan", "role", "courseSlugs", "features", "step"]
    assert (fields["plan"].order, fields["plan"].baseline) == (("free", "pro"), "free")
    assert fields["role"].placement is Placement.PRIVATE


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"CLERK_SECRET_KEY": "pk_test_1"}, "CLERK_SECRET_KEY"),
        ({"SANITY_PROJECT_ID": "a/b"}, "SANITY_PROJECT_ID"),
        ({"SANITY_API_URL": "https://p1.apicdn.sanity.io"}, "SANITY_API_URL"),
        ({"SANITY_API_URL": "p1.api.sanity.io"}, "SANITY_API_URL"),
        ({"MAX_REVOCATIONS": "many"}, "MAX_REVOCATIONS"),
        ({"EXTRA_FIELDS": "features"}, "EXTRA_FIELDS"),
        ({"EXTRA_FIELDS": "plan=latest"}, "EXTRA_FIELDS"),
        ({"EXTRA_FIELDS": "entitlementSync=latest"}, "EXTRA_FIELDS"),
        ({"PRIVATE_FIELDS": "pan"}, "PRIVATE_FIELDS"),
        ({"METADATA_NAMESPACE": "a.b"}, "METADATA_NAMESPACE"),
        ({"METADATA_NAMESPACE": "entitlementSync"}, "METADATA_NAMESPACE: entitlementSync is the name of our own note"),
        ({"PLAN_ORDER": "pro", "BASELINE_PLAN": "free"}, "BASELINE_PLAN"),
        ({"PORT": "ninety"}, "PORT"),
    ],
)
def test_an_invalid_value_is_named(load: Any, environment: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        load(**environment)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("SANITY_PROJECT_ID", "a/b", "must be a project id of lowercase letters, digits and -"),
        ("SANITY_DATASET", "A", "must be a dataset name of lowercase letters, digits, - and _"),
        ("SANITY_API_VERSION", "v1", "must be a date such as 2025-02-19"),
        ("CLERK_BUDGET", "-1", "must be a whole number, 0 or more"),
        ("POLL_SECONDS", "1.5", "must be a whole number of seconds, 0 or more"),
        ("RECONCILE_AT", "3am", "must be a time in UTC such as 03:30, or off"),
        ("CLAIMS_BUDGET", "0", "must be a whole number of bytes, 1 or more"),
        ("PORT", "70000", "must be a whole number from 0 to 65535"),
        ("NOTIFY_URL", "hooks.example.org", "must be an address that starts with https://"),
        (
            "NOTIFY_SECRET",
            "a secret",
            "must be whsec_ and base64, without a comma: make one with `echo whsec_$(openssl rand -base64 32)`",
        ),
        ("LOG_FORMAT", "xml", "must be auto, json or console"),
    ],
)
def test_an_invalid_value_is_refused_with_what_to_write(load: Any, name: str, value: str, sentence: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(**{name: value})
    assert caught.value.detail == f"{name} {sentence}"


def test_missing_settings_are_named_all_at_once() -> None:
    with pytest.raises(ConfigurationError, match=r"SANITY_PROJECT_ID is not set.*CLERK_SECRET_KEY is not set"):
        load_settings(_env_file=None)


def test_no_secret_is_in_an_error_or_a_repr(load: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(CLERK_SECRET_KEY="planted-key", PORT="x")
    assert "planted" not in str(caught.value)
    assert "planted" not in repr(load(CLERK_SECRET_KEY="sk_test_planted", PORT="1"))


@pytest.mark.parametrize("variable", ["DYNO", "RENDER", "FLY_APP_NAME", "K_SERVICE"])
def test_an_ephemeral_disk_is_refused_unless_a_database_is_set(load: Any, variable: str) -> None:
    with pytest.raises(ConfigurationError, match="DATABASE_URL"):
        load(**{variable: "x"})
    assert load(**{variable: "x", "DATABASE_URL": "postgres://u@h/d"}).database_url.startswith("postgres")


def test_the_valid_settings_are_read_without_the_invalid_ones(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    given = {"SANITY_PROJECT_ID": "p1", "SANITY_DATASET": "test", "PORT": "ninety", "EXTRA_FIELDS": "features"}
    for name, value in {**given, "CLERK_SECRET_KEY": "sk_live_x", "PRIVATE_FIELDS": "pan", "DYNO": "x"}.items():
        monkeypatch.setenv(name, value)
    settings, problems = load_valid_settings()
    assert set(problems) == {"SANITY_READ_TOKEN", "PORT", "EXTRA_FIELDS", "PRIVATE_FIELDS", "DATABASE_URL"}
    assert (problems["SANITY_READ_TOKEN"], "write features=union" in problems["EXTRA_FIELDS"]) == (
        "SANITY_READ_TOKEN is not set",
        True,
    )
    assert (settings.sanity_url, settings.sanity_dataset, settings.budget) == ("https://p1.api.sanity.io", "test", 300)
    assert (settings.port, [field.name for field in settings.layout.fields]) == (8000, ["plan", "role", "courseSlugs"])


def test_a_valid_environment_has_no_problems(load: Any) -> None:
    expected = load(PORT="90")
    assert load_valid_settings() == (expected, {})


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("SANITY_WEBHOOK_SECRET", "short", "must have at least 16 characters: generate it with `openssl rand -hex 32`"),
        ("ADMIN_TOKEN", "short", "must have at least 16 characters: generate it with `openssl rand -hex 32`"),
        (
            "SANITY_WEBHOOK_SECRET",
            "a-long-beginning-of,itself",
            EACH_SECRET,
        ),
        (
            "SANITY_WEBHOOK_SECRET",
            '"a-long-beginning,and-a-long-end"',
            QUOTED_SECRET,
        ),
        (
            "CLERK_WEBHOOK_SECRET",
            "whsec_c2FuZGJveC1j,bGVyay13ZWJob29r",
            "must be whsec_ and base64, without a comma: copy the signing secret under Webhooks in Clerk's dashboard",
        ),
        ("SANITY_READ_TOKEN", "sk-\u200bplanted", "contains a character that no key has: copy it again"),
        (
            "PLAN_ORDER",
            '["free", "pro"]',
            "must be a list separated by commas, without brackets and quotes: free,pro",
        ),
        (
            "EXTRA_FIELDS",
            '{"features": "union"}',
            "must be a list separated by commas, without brackets and quotes: features=union",
        ),
        ("ROLE_ORDER", "member;admin", "must be a list separated by commas, without brackets and quotes: member,admin"),
        ("PLAN_ORDER", "free,pro,free", "must name each item once: free is repeated"),
        ("PLAN_ORDER", "free,\u00a0pro", r"contains the invisible character \xa0: type it again"),
        ("SANITY_API_VERSION", "v2025-02-19", "must be a date such as 2025-02-19"),
        ("SANITY_API_VERSION", "2025-02-31", "must be a date such as 2025-02-19"),
        ("CLERK_API_URL", "https://api.clerk.com:port", "must be a URL that starts with https://"),
    ],
)
def test_a_slip_is_refused_with_what_to_write(load: Any, name: str, value: str, sentence: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(**{name: value})
    assert caught.value.detail == f"{name} {sentence}"
    _, problems = load_valid_settings()
    assert problems[name] == f"{name} {sentence}"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("PLAN_ODER", "PLAN_ORDER"),
        ("DATABASE_URI", "DATABASE_URL"),
        ("SANITY_DATASETS", "SANITY_DATASET"),
        ("SANITY_API_TOKEN", "SANITY_READ_TOKEN"),
        ("CLERK_WEBHOOK_SIGNING_SECRET", "CLERK_WEBHOOK_SECRET"),
        ("CLERK_PUBLISHABLE_KEY", ""),
        ("POSTGRES_URL", "DATABASE_URL"),
    ],
)
def test_a_variable_that_looks_like_a_setting_is_reported(load: Any, name: str, meant: str) -> None:
    load(**{name: "x"})
    assert unknown_settings()[name] == meant


def test_other_variables_are_not_reported(load: Any) -> None:
    names = (
        "SANITY_MANAGE_TOKEN",
        "plan_order",
        "HOME",
        "PORTS",
        "SUPPORT",
        "PGDATABASE",
        "READ_TOKEN",
        "DATABASE_URL_TEST",
    )
    load(**dict.fromkeys(names, "x"))
    assert unknown_settings().keys().isdisjoint(names)
    load(POSTGRES_URL="x", DATABASE_URL="postgres://u@h/d")
    assert "POSTGRES_URL" not in unknown_settings()


def test_a_missing_setting_names_the_variable_that_was_set_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANITY_API_TOKEN", "planted")
    with pytest.raises(
        ConfigurationError, match=r"SANITY_READ_TOKEN is not set \(SANITY_API_TOKEN is, but it is not read\)"
    ):
        load_settings(_env_file=None)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_file_of_windows_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, encoding: str) -> None:
    monkeypatch.chdir(tmp_path)
    lines = "\r\n".join(f"{name}={value}" for name, value in {**GIVEN, "PLAN_ODER": "x"}.items())
    (tmp_path / ".env").write_bytes(lines.encode(encoding))
    assert load_settings().sanity_project_id == "p1"
    assert unknown_settings() == {"PLAN_ODER": "PLAN_ORDER"}


def test_a_file_that_is_not_text_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_bytes("SANITY_PROJECT_ID=p1".encode("utf-16"))
    with pytest.raises(ConfigurationError, match=r"\.env cannot be read"):
        load_settings()
    with pytest.raises(ConfigurationError, match=r"\.env cannot be read"):
        load_valid_settings()
