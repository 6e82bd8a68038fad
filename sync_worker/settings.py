"""The settings, read from the environment and `.env`; the environment wins.

The docstring of each setting is its row in the settings table: meaning, unit, default and consequence.
"""

from __future__ import annotations

import hashlib
import re
from datetime import date
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field as Setting
from pydantic import SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from sync_worker.domain.entitlements import CORE_FIELDS, Field, Layout, MergeRule, Placement
from sync_worker.domain.ownership import MARKER_KEY
from sync_worker.variables import values

Texts = Annotated[tuple[str, ...], NoDecode]
_PERCENT = re.compile(r"(\d{1,3})%")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_RESERVED = {MARKER_KEY, "_id", "_rev", "_updatedAt", "startsAt", "endsAt", "status", "unresolved"}


class Settings(BaseSettings):
    """All settings, validated."""

    model_config = SettingsConfigDict(
        env_file=".env",
        env_file_encoding="utf-8-sig",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        use_attribute_docstrings=True,
    )

    sanity_project_id: str = Setting(pattern=r"^[a-z0-9][a-z0-9-]*$")
    """The Sanity project that holds the entitlements. Required."""
    sanity_dataset: str = Setting(default="production", pattern=r"^[a-z0-9_][a-z0-9_-]*$")
    """The dataset that holds the entitlements."""
    sanity_read_token: SecretStr
    """A Sanity API token with the Viewer role. Required, because a private dataset looks empty without it."""
    sanity_webhook_secret: Annotated[tuple[SecretStr, ...], NoDecode] = ()
    """The secret of the Sanity webhook, 16 characters or more; several, separated by spaces or commas, during rotation.
    Without it, webhooks get 503."""
    sanity_api_version: str = Setting(default="2025-02-19", pattern=r"^\d{4}-\d{2}-\d{2}$")
    """The version of Sanity's HTTP API."""
    sanity_api_url: str = ""
    """The URL of Sanity's API; default https://{project}.api.sanity.io. Not the CDN, which serves stale data."""
    clerk_secret_key: SecretStr
    """The key of Clerk's Backend API, sk_live_… or sk_test_…. Required."""
    clerk_webhook_secret: Annotated[tuple[SecretStr, ...], NoDecode] = ()
    """The signing secret of the Clerk webhook, whsec_…; several, separated by spaces or commas, during rotation."""
    clerk_api_url: str = "https://api.clerk.com"
    """The URL of Clerk's API, without /v1."""
    clerk_budget: int = Setting(default=0, ge=0)
    """Calls to Clerk per 10 seconds, shared by all processes; default 300 with a live key, 90 with a test key. Clerk's
    limit of 1000 or 100 also covers your own app, so leave room for it."""
    database_url: str = "sqlite:///sync-worker.db"
    """The database of the work queue, sqlite:///file or postgres://…. It stores ids and work, not entitlements."""
    groq_dir: Path | None = None
    """A directory with your own *.groq files; default: those of the package."""
    plan_order: Texts = ()
    """The plans, lowest first. If set, only these plans can be granted."""
    role_order: Texts = ()
    """The roles, lowest first. If set, only these roles can be granted."""
    extra_fields: Texts = ()
    """Additional managed keys and how they merge: features=union,onboardingStep=latest."""
    baseline_plan: str | None = None
    """The plan of a subject without an active entitlement; default: the key is removed."""
    baseline_role: str | None = None
    """The role of a subject without an active entitlement; default: the key is removed."""
    private_fields: Texts = ()
    """Managed keys that are stored in private metadata, which browsers cannot read."""
    metadata_namespace: str | None = None
    """The name of a metadata object that contains the managed keys; default: they are stored at the top level."""
    max_revocations: str = "10%"
    """How many subjects may lose something by one cause within an hour. More losses are held for approval. A number, or
    a percentage of the managed subjects (at least 5)."""
    events: Literal["webhook", "listen", "both"] = "webhook"
    """Where publishes are reported: by webhook, by listening to Sanity (no public URL is needed), or both."""
    poll_seconds: int = Setting(default=300, ge=0)
    """Seconds between polls for publishes and deletes without a webhook; 0 turns polling off. Each costs two
    requests."""
    full_check_seconds: int = Setting(default=3600, ge=1)
    """Seconds between comparisons of all ids, which find deletes that the transaction log does not show."""
    reconcile_at: str = Setting(default="", pattern=r"^(([01]\d|2[0-3]):[0-5]\d|off)?$")
    """When the worker reconciles every day: HH:MM in UTC, or off. By default at night, if `serve` runs on SQLite."""
    claims_budget: int = Setting(default=1000, gt=0)
    """Bytes of public managed keys before a warning. A session cookie breaks above about 1.2 KB of claims."""
    admin_token: SecretStr | None = None
    """The token for the status pages, 16 characters or more; without it they are disabled."""
    studio_url: str = ""
    """The URL of your Sanity Studio, such as https://acme.sanity.studio: the pages link to documents in it."""
    trusted_proxies: Texts = ()
    """The addresses or networks of your proxies, such as 10.0.0.0/8: only they may name the client, in X-Forwarded-For;
    default: 127.0.0.1 and ::1."""
    metrics_token: SecretStr | None = None
    """The bearer token for `/metrics`, 16 characters or more; without it anybody who reaches the port may read them."""
    notify_url: SecretStr | None = None
    """Where notices are posted, such as the incoming webhook of a chat; without it nobody is notified."""
    notify_secret: SecretStr | None = None
    """The secret that notices are signed with, whsec_… and base64; without it they are not signed."""
    port: int = Setting(default=8000, ge=0, le=65535)
    """The port to listen on."""
    log_format: Literal["auto", "json", "console"] = "auto"
    """The log format: json, console, or auto for console on a terminal and JSON elsewhere."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - pydantic gives it by name
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - as above
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read `.env` only where there is one: a file that is missing costs as much as the environment itself."""
        sources = (init_settings, env_settings)
        return (*sources, dotenv_settings) if Path(str(cls.model_config["env_file"])).is_file() else sources

    @field_validator("sanity_webhook_secret", "clerk_webhook_secret", mode="before")
    @classmethod
    def _secrets(cls, value: object) -> object:
        return tuple(map(SecretStr, values.secrets(value))) if isinstance(value, str) else value

    @field_validator("plan_order", "role_order", "extra_fields", "private_fields", "trusted_proxies", mode="before")
    @classmethod
    def _lists(cls, value: object) -> object:
        return values.items(value) if isinstance(value, str) else value

    @field_validator(
        "sanity_read_token",
        "clerk_secret_key",
        "admin_token",
        "metrics_token",
        "notify_url",
        "notify_secret",
        mode="before",
    )
    @classmethod
    def _stripped(cls, value: object) -> object:
        return value.strip() if isinstance(value, str) else value

    @field_validator("sanity_read_token", "clerk_secret_key")
    @classmethod
    def _keys(cls, value: SecretStr) -> SecretStr:
        values.check_key(value.get_secret_value())
        return value

    @field_validator("admin_token", "metrics_token")
    @classmethod
    def _token(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            values.check_secret(value.get_secret_value())
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        values.check_networks(value)
        return value

    @field_validator("sanity_webhook_secret")
    @classmethod
    def _own_secrets(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        values.check_secrets([secret.get_secret_value() for secret in value])
        return value

    @field_validator("clerk_webhook_secret")
    @classmethod
    def _svix_secrets(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for secret in value:
            values.check_svix_secret(secret.get_secret_value())
        return value

    @field_validator("sanity_api_version")
    @classmethod
    def _version(cls, value: str) -> str:
        try:
            date.fromisoformat(value)
        except ValueError:
            raise ValueError("must be a date such as 2025-02-19") from None
        return value

    @field_validator("baseline_plan", "baseline_role")
    @classmethod
    def _visible(cls, value: str | None) -> str | None:
        values.check_visible(value or "")
        return value

    @field_validator("notify_url")
    @classmethod
    def _notify_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.fullmatch(r"https?://[^/\s]+\S*", value.get_secret_value()):
            raise ValueError("must be an address that starts with https://")
        return value

    @field_validator("notify_secret")
    @classmethod
    def _notify_secret(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            values.check_svix_secret(value.get_secret_value(), "make one with `echo whsec_$(openssl rand -base64 32)`")
        return value

    @field_validator("sanity_api_url", "clerk_api_url", "studio_url")
    @classmethod
    def _url(cls, value: str) -> str:
        if value:
            values.check_url(value)
        if "apicdn" in value:
            raise ValueError("must not be the CDN, which serves stale data: use api.sanity.io")
        return value.rstrip("/").removesuffix("/v1")

    @field_validator("clerk_secret_key")
    @classmethod
    def _clerk_key(cls, value: SecretStr) -> SecretStr:
        if not value.get_secret_value().startswith(("sk_live_", "sk_test_")):
            raise ValueError("must start with sk_live_ or sk_test_: copy it from API keys in Clerk's dashboard")
        return value

    @field_validator("max_revocations")
    @classmethod
    def _revocations(cls, value: str) -> str:
        if not (value.isdecimal() or _PERCENT.fullmatch(value)):
            raise ValueError("must be a number such as 20, or a percentage such as 10%")
        return value

    @model_validator(mode="after")
    def _check_fields(self) -> Self:
        managed = [field.name for field in self.layout.fields]
        if unknown := set(self.private_fields) - set(managed):
            raise ValueError(
                f"PRIVATE_FIELDS: {', '.join(sorted(unknown))} is not a managed key ({', '.join(managed)})"
            )
        for name, order, value in (
            ("BASELINE_PLAN", self.plan_order, self.baseline_plan),
            ("BASELINE_ROLE", self.role_order, self.baseline_role),
        ):
            if order and value is not None and value not in order:
                raise ValueError(f"{name}: {value} is not one of {', '.join(order)}")
        return self

    @property
    def secrets(self) -> tuple[str, ...]:
        """The secret values, which must never be logged."""
        single = (
            *(self.sanity_read_token, self.clerk_secret_key, self.admin_token, self.metrics_token),
            *(self.notify_url, self.notify_secret),
        )
        all_secrets = (*single, *self.sanity_webhook_secret, *self.clerk_webhook_secret)
        return tuple(secret.get_secret_value() for secret in all_secrets if secret is not None)

    @property
    def sanity_url(self) -> str:
        """The base URL of Sanity's HTTP API."""
        return self.sanity_api_url or f"https://{self.sanity_project_id}.api.sanity.io"

    @property
    def budget(self) -> int:
        """Calls to Clerk per 10 seconds."""
        live = self.clerk_secret_key.get_secret_value().startswith("sk_live_")
        return self.clerk_budget or (300 if live else 90)

    @property
    def layout(self) -> Layout:
        """The managed keys, and where they are stored."""
        orders = {"plan": self.plan_order, "role": self.role_order}
        baselines = {"plan": self.baseline_plan, "role": self.baseline_role}
        core = (
            Field(f.name, f.rule, order=orders.get(f.name, ()), baseline=baselines.get(f.name)) for f in CORE_FIELDS
        )
        fields = (*core, *(_extra_field(text) for text in self.extra_fields))
        if repeated := {f.name for f in fields if [g.name for g in fields].count(f.name) > 1}:
            raise ValueError(f"EXTRA_FIELDS: {', '.join(sorted(repeated))} is defined more than once")
        if self.metadata_namespace == MARKER_KEY:
            raise ValueError(f"METADATA_NAMESPACE: {MARKER_KEY} is the name of our own note; choose another")
        if self.metadata_namespace is not None and not _NAME.fullmatch(self.metadata_namespace):
            raise ValueError("METADATA_NAMESPACE: must start with a letter or _ and contain only letters, digits and _")
        return Layout(
            fields=tuple(
                Field(f.name, f.rule, Placement.PRIVATE, f.order, f.baseline) if f.name in self.private_fields else f
                for f in fields
            ),
            namespace=self.metadata_namespace,
            claims_budget=self.claims_budget,
            source=f"{self.sanity_project_id}/{self.sanity_dataset}",
        )

    @property
    def is_sqlite(self) -> bool:
        """Whether the database is a file, which one machine has to itself."""
        return self.database_url.strip().startswith("sqlite")

    @property
    def nightly(self) -> str:
        """When a process that serves alone reconciles: by default at a minute of the night drawn from the project."""
        if self.reconcile_at or not self.is_sqlite:
            return self.reconcile_at.replace("off", "")
        minute = int.from_bytes(hashlib.sha256(self.sanity_project_id.encode()).digest()[:4], "big") % (4 * 60)
        return f"{1 + minute // 60:02}:{minute % 60:02}"

    @property
    def installation(self) -> dict[str, str]:
        """What decides which keys of whom are managed, by variable. The database remembers it."""
        return {
            "SANITY_PROJECT_ID": self.sanity_project_id,
            "SANITY_DATASET": self.sanity_dataset,
            "METADATA_NAMESPACE": self.metadata_namespace or "",
            "PRIVATE_FIELDS": ",".join(sorted(self.private_fields)),
            "EXTRA_FIELDS": ",".join(sorted(self.extra_fields)),
        }

    @property
    def groq_folder(self) -> Path:
        """The directory of the GROQ files."""
        return self.groq_dir or packaged_groq()


def packaged_groq() -> Path:
    """Return the directory of the default GROQ files: in the installed package, or beside it in a checkout."""
    packaged = Path(__file__).parent / "groq"
    return packaged if packaged.is_dir() else Path(__file__).parent.parent / "groq"


def _extra_field(text: str) -> Field:
    name, _, rule = (part.strip() for part in text.partition("="))
    if not _NAME.fullmatch(name) or name in _RESERVED:
        raise ValueError(f"EXTRA_FIELDS: {name!r} cannot be the name of a managed key")
    if rule not in {MergeRule.UNION, MergeRule.LATEST}:
        raise ValueError(f"EXTRA_FIELDS: write {name}=union (a list of strings) or {name}=latest (a single value)")
    return Field(name, MergeRule(rule))
