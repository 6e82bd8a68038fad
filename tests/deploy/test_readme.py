"""What deploy/README.md and docs/go-live.md say is true: links, files, commands, settings and claims."""

from __future__ import annotations

import json
import re
import shlex

import pytest
import typer.main

from sync_worker.cli import app
from sync_worker.domain.entitlements import CORE_FIELDS
from sync_worker.settings import Settings
from tests.kits import DEPLOY, ROOT

GUIDE = (DEPLOY / "README.md").read_text()
GO_LIVE = (ROOT / "docs" / "go-live.md").read_text()
RESERVED = {"pla", "fea", "o", "v", "sts", "sub", "sid", "azp", "exp", "iat", "iss", "jti", "nbf", "act", "org_id"}
"""Claims that Clerk writes itself and lets nobody override."""


def test_every_platform_has_its_lines_and_is_linked_to() -> None:
    anchors = {
        re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"^## (.+)$", GUIDE, re.MULTILINE)
    }
    linked = set(re.findall(r"\(#([\w-]+)\)", GUIDE)) | set(re.findall(r"deploy/README.md#([\w-]+)", GO_LIVE))
    assert linked <= anchors
    for platform in ("docker", "docker-compose", "heroku", "render", "flyio", "kubernetes", "systemd"):
        assert platform in linked


def test_every_file_that_is_named_is_there() -> None:
    named = set(re.findall(r"`([\w./-]+)`", GO_LIVE)) | set(re.findall(r"\b(deploy/[\w./-]*\w)", GUIDE + GO_LIVE))
    files = {name for name in named if "/" in name and not name.startswith("/")} - {"deploy/.env"}
    assert len(files) > 12
    assert sorted(name for name in files if not (ROOT / name).exists()) == []
    beside = re.findall(r"`((?:\.\./)?[\w-]+(?:\.\w+|/[\w./-]*))`", GUIDE.split("## Before")[0])
    assert sorted(name for name in beside if not (DEPLOY / name).exists()) == []


def test_every_command_of_ours_is_one_with_the_options_that_it_has() -> None:
    text = GUIDE.replace("python -m sync_worker", "sync-worker")
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]  # click's group, typed as a command
    named = re.findall(
        r"(?:^ {4}|`|-- |exec web |exec sync-worker |run |bin/|\")sync-worker ([a-z][^`\"#\n]*)", text, re.MULTILINE
    )
    assert len(named) > 12
    for line in named:
        verb, *rest = shlex.split(line)
        command = commands[verb]
        if rest and rest[0] in getattr(command, "commands", {}):
            command, rest = command.commands[rest[0]], rest[1:]
        command.make_context(verb, rest)  # raises on an option that is not there


def test_settings_that_are_named_exist() -> None:
    settings = {name.upper() for name in Settings.model_fields}
    named = set(
        re.findall(r"\b((?:SANITY|CLERK|PLAN|ROLE|ADMIN|CLAIMS|RECONCILE|DATABASE)_[A-Z_]+)\b", GUIDE + GO_LIVE)
    )
    others = {"SANITY_MANAGE_TOKEN", "CLERK_JWT_KEY"}  # of two commands, and of the worked app
    assert named <= settings | others


def test_the_session_token_holds_the_owned_keys_under_names_that_clerk_leaves_free() -> None:
    claims = json.loads((DEPLOY / "clerk" / "session-token.json").read_text())
    assert claims == {field.name: f"{{{{user.public_metadata.{field.name}}}}}" for field in CORE_FIELDS}
    assert set(claims) & RESERVED == set()
    typed = re.findall(r"^    (\w+)\?:", (DEPLOY / "clerk" / "claims.d.ts").read_text(), re.MULTILINE)
    assert typed == list(claims)


@pytest.mark.parametrize("text", [GUIDE, GO_LIVE], ids=["deploy/README.md", "docs/go-live.md"])
def test_what_the_app_reads_is_a_claim(text: str) -> None:
    claims = json.loads((DEPLOY / "clerk" / "session-token.json").read_text())
    read = re.findall(r"sessionClaims\?\.(\w+)", text)
    assert read
    assert set(read) <= set(claims)
