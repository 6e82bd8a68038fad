"""The environment becomes Settings.

Why it exists: each value is read once, checked once, and documented once: what it is, its unit, its default, and what
follows from it. `.env` is read; the environment wins. Nothing else in the program reads the environment.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field as Setting
from pydantic import SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from sync_worker.domain.entitlements import CORE_FIELDS, Field, Layout, MergeRule, Placement
from sync_worker.errors import ConfigurationError

Texts = Annotated[tuple[str, ...], NoDecode]
_PERCENT = re.compile(r"(\d{1,3})%")
_SVIX_SECRET = re.compile(r"whsec_([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{4}|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{2}==)")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_EPHEMERAL = {"DYNO": "Heroku", "RENDER": "Render", "FLY_APP_NAME": "Fly", "K_SERVICE": "Cloud Run"}
_RESERVED = {"entitlementSync", "_id", "_rev", "_updatedAt", "startsAt", "endsAt", "status"}


class Settings(BaseSettings):
    """Everything an operator can set."""

    model_config = SettingsConfigDict(
        env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True, use_attribute_docstrings=True
    )

    sanity_project_id: str = Setting(pattern=r"^[a-z0-9][a-z0-9-]*$")
    """The project whose entitlements count. Required."""
    sanity_dataset: str = Setting(default="production", pattern=r"^[a-z0-9_][a-z0-9_-]*$")
    """The dataset whose entitlements count."""
    sanity_read_token: SecretStr
    """A token with the Viewer role. Required: without it a private dataset looks empty."""
    sanity_webhook_secret: Annotated[tuple[SecretStr, ...], NoDecode] = ()
    """The webhook's secret; several, separated by commas, during rotation. Without it deliveries are answered 503."""
    sanity_api_version: str = Setting(default="2025-02-19", pattern=r"^\d{4}-\d{2}-\d{2}$")
    """The pinned version of Sanity's HTTP API."""
    sanity_api_url: str = ""
    """Where Sanity's API is; default https://{project}.api.sanity.io. Never the CDN: it serves old content."""
    clerk_secret_key: SecretStr
    """The Backend API key, sk_live_… or sk_test_…. Required."""
    clerk_webhook_secret: Annotated[tuple[SecretStr, ...], NoDecode] = ()
    """The signing secret of the Clerk webhook, whsec_…; several, separated by commas, during rotation."""
    clerk_api_url: str = "https://api.clerk.com"
    """Where Clerk's API is; /v1 is added."""
    clerk_budget: int = Setting(default=0, ge=0)
    """Calls per 10 s, shared by all processes; default 300 for a live key, 90 for a test key. Clerk's limit of 1000 or
    100 is shared with your own app, so leave it room."""
    database_url: str = "sqlite:///sync-worker.db"
    """The work set's database: sqlite:///file or postgres://…. It holds ids and work to do, never the truth."""
    groq_dir: Path | None = None
    """A folder with your own *.groq files; default: those of the package."""
    plan_order: Texts = ()
    """Plans, lowest first. When set it is also the list of what may be granted."""
    role_order: Texts = ()
    """Roles, lowest first. When set it is also the list of what may be granted."""
    extra_fields: Texts = ()
    """Further owned keys and how they merge: features=union,onboardingStep=latest."""
    baseline_plan: str | None = None
    """What plan remains without an active entitlement; default: the key is removed."""
    baseline_role: str | None = None
    """What role remains without an active entitlement; default: the key is removed."""
    private_fields: Texts = ()
    """Which owned keys go to private metadata, where browsers cannot read them."""
    metadata_namespace: str | None = None
    """One object that holds the owned keys; default: they stand at the top level."""
    max_revocations: str = "10%"
    """Revocations in one changeset before they are held for approval: a number, or a percentage of at least 5."""
    poll_seconds: int = Setting(default=300, ge=0)
    """Seconds between polls for publishes whose webhook was lost; 0 is off. Each costs one query."""
    reconcile_at: str = Setting(default="", pattern=r"^(([01]\d|2[0-3]):[0-5]\d)?$")
    """When the worker reconciles by itself every day, as HH:MM in UTC; default: never, your scheduler does."""
    claims_budget: int = Setting(default=1000, gt=0)
    """Bytes of public owned keys before a warning; a session cookie breaks above about 1.2 KB of claims."""
    admin_token: SecretStr | None = None
    """Opens the status pages; without it they are off."""
    port: int = Setting(default=8000, ge=0, le=65535)
    """The port to listen on."""
    log_format: Literal["auto", "json", "console"] = "auto"
    """How logs look; auto is console on a terminal and JSON elsewhere."""

    @field_validator("sanity_webhook_secret", "clerk_webhook_secret", mode="before")
    @classmethod
    def _secrets(cls, value: object) -> object:
        return tuple(SecretStr(item) for item in _listed(value)) if isinstance(value, str) else value

    @field_validator("plan_order", "role_order", "extra_fields", "private_fields", mode="before")
    @classmethod
    def _texts(cls, value: object) -> object:
        return _listed(value) if isinstance(value, str) else value

    @field_validator("sanity_read_token", "clerk_secret_key", "admin_token", mode="before")
    @classmethod
    def _stripped(cls, value: object) -> object:
        return value.strip() if isinstance(value, str) else value

    @field_validator("clerk_webhook_secret")
    @classmethod
    def _svix_secrets(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for secret in value:
            if not _SVIX_SECRET.fullmatch(secret.get_secret_value()):
                raise ValueError("must be whsec_ and base64; it is under Webhooks, the endpoint's signing secret")
        return value

    @field_validator("sanity_api_url", "clerk_api_url")
    @classmethod
    def _url(cls, value: str) -> str:
        if value and not re.match(r"https?://[^/\s]+", value):
            raise ValueError("must begin with https://")
        if "apicdn" in value:
            raise ValueError("must not be the CDN: it serves old content; use api.sanity.io")
        return value.rstrip("/").removesuffix("/v1")

    @field_validator("clerk_secret_key")
    @classmethod
    def _clerk_key(cls, value: SecretStr) -> SecretStr:
        if not value.get_secret_value().startswith(("sk_live_", "sk_test_")):
            raise ValueError("must begin with sk_live_ or sk_test_; it is under API keys in Clerk's dashboard")
        return value

    @field_validator("max_revocations")
    @classmethod
    def _revocations(cls, value: str) -> str:
        if not (value.isdecimal() or _PERCENT.fullmatch(value)):
            raise ValueError("must be a number such as 20, or a percentage such as 10%")
        return value

    @model_validator(mode="after")
    def _fields_fit(self) -> Self:
        names = [field.name for field in self.layout.fields]
        if unknown := set(self.private_fields) - set(names):
            raise ValueError(f"PRIVATE_FIELDS: {', '.join(sorted(unknown))} is not an owned key ({', '.join(names)})")
        for name, order, value in (
            ("BASELINE_PLAN", self.plan_order, self.baseline_plan),
            ("BASELINE_ROLE", self.role_order, self.baseline_role),
        ):
            if order and value is not None and value not in order:
                raise ValueError(f"{name}: {value} is not in {', '.join(order)}")
        return self

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must not be written anywhere."""
        single = (self.sanity_read_token, self.clerk_secret_key, self.admin_token)
        given = (*single, *self.sanity_webhook_secret, *self.clerk_webhook_secret)
        return tuple(secret.get_secret_value() for secret in given if secret is not None)

    @property
    def sanity_url(self) -> str:
        """The base address of Sanity's HTTP API."""
        return self.sanity_api_url or f"https://{self.sanity_project_id}.api.sanity.io"

    @property
    def budget(self) -> int:
        """Clerk calls per 10 s."""
        live = self.clerk_secret_key.get_secret_value().startswith("sk_live_")
        return self.clerk_budget or (300 if live else 90)

    @property
    def layout(self) -> Layout:
        """The table of owned keys."""
        orders = {"plan": self.plan_order, "role": self.role_order}
        baselines = {"plan": self.baseline_plan, "role": self.baseline_role}
        core = (
            Field(f.name, f.rule, order=orders.get(f.name, ()), baseline=baselines.get(f.name)) for f in CORE_FIELDS
        )
        fields = (*core, *(_extra_field(text) for text in self.extra_fields))
        if repeated := {f.name for f in fields if [g.name for g in fields].count(f.name) > 1}:
            raise ValueError(f"EXTRA_FIELDS: {', '.join(sorted(repeated))} is given twice")
        if self.metadata_namespace is not None and not _NAME.fullmatch(self.metadata_namespace):
            raise ValueError("METADATA_NAMESPACE: must be a plain name of letters, digits and _")
        return Layout(
            fields=tuple(
                Field(f.name, f.rule, Placement.PRIVATE, f.order, f.baseline) if f.name in self.private_fields else f
                for f in fields
            ),
            namespace=self.metadata_namespace,
            claims_budget=self.claims_budget,
        )

    @property
    def groq_folder(self) -> Path:
        """Where the GROQ files are."""
        return self.groq_dir or packaged_groq()


def packaged_groq() -> Path:
    """Return the folder of our own GROQ files: inside the installed package, or beside it in a checkout."""
    packaged = Path(__file__).parent / "groq"
    return packaged if packaged.is_dir() else Path(__file__).parent.parent / "groq"


def load_settings(**overrides: Any) -> Settings:
    """Read the environment. Raises ConfigurationError that names every wrong variable, and never prints its value."""
    try:
        settings = Settings(**overrides)
    except ValidationError as error:
        raise ConfigurationError("; ".join(_wrong(error).values())) from None
    _refuse_lost_disk(settings)
    return settings


def load_what_is_right() -> tuple[Settings, dict[str, str]]:
    """Read the environment as far as it is right, and say what is wrong with each other variable.

    A wrong variable has its default, or a stand-in, so that those who do not use it can go on.
    """
    wrong: dict[str, str] = {}
    while True:
        try:
            settings = Settings(**{name.lower(): _without(name.lower()) for name in wrong})
            break
        except ValidationError as error:
            wrong = {**_wrong(error), **wrong}
    try:
        _refuse_lost_disk(settings)
    except ConfigurationError as error:
        wrong["DATABASE_URL"] = error.detail
    return settings, wrong


def _without(name: str) -> Any:
    return _STAND_INS[name] if name in _STAND_INS else Settings.model_fields[name].default


_STAND_INS = {"sanity_project_id": "unset", "sanity_read_token": "unset", "clerk_secret_key": "sk_test_unset"}
"""For what is required and has no default."""


def _wrong(error: ValidationError) -> dict[str, str]:
    """Return what is wrong, by the name of the variable. Values that do not fit each other are told by one of them."""
    sentences = {}
    for problem in error.errors(include_url=False, include_input=False):
        text = "is not set" if problem["type"] == "missing" else problem["msg"].removeprefix("Value error, ")
        name = str(problem["loc"][0]).upper() if problem["loc"] else text.partition(":")[0]
        sentences[name] = f"{name} {text}" if problem["loc"] else text
    return sentences


def _refuse_lost_disk(settings: Settings) -> None:
    """Refuse the default SQLite file where the platform throws the disk away, and accepted work with it."""
    if "database_url" in settings.model_fields_set:
        return
    for variable, platform in _EPHEMERAL.items():
        if variable in os.environ:
            raise ConfigurationError(
                f"DATABASE_URL is not set, and the disk of {platform} is lost at restarts, with all accepted work; "
                "set it to a PostgreSQL, or to a SQLite file on a mounted volume"
            )


def _listed(value: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in value.split(",") if item.strip())


def _extra_field(text: str) -> Field:
    name, _, rule = (part.strip() for part in text.partition("="))
    if not _NAME.fullmatch(name) or name in _RESERVED:
        raise ValueError(f"EXTRA_FIELDS: {name!r} cannot be the name of an owned key")
    if rule not in {MergeRule.UNION, MergeRule.LATEST}:
        raise ValueError(f"EXTRA_FIELDS: write {name}=union (lists of texts) or {name}=latest (one value)")
    return Field(name, MergeRule(rule))
