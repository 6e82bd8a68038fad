"""`claims`: what the app reads in a person's token, and what is wrong with it; `claims install`: a JWT template."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from pathlib import Path  # noqa: TC003 - typer reads the annotation
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from sync_worker.cli.claims_install import install
from sync_worker.cli.output import AsJson, CommandFailed, echo, print_json
from sync_worker.cli.setup import begin
from sync_worker.cli.tables import print_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sync_worker.clerk.claims import Template
    from sync_worker.clerk.tokens import Tokens
    from sync_worker.domain.subjects import Subject
    from sync_worker.runtime.wiring import Store
    from sync_worker.settings import Settings

FINDINGS = 2
"""Exit code when something is wrong with the claims."""


class _SubjectFirst(TyperGroup):
    """Takes `claims SUBJECT` for `claims show SUBJECT`."""

    default_command = "show"

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands:
            args = [self.default_command, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_SubjectFirst,
    help="Show what the app reads in a person's token, and what is wrong with it: sync-worker claims SUBJECT.",
    no_args_is_help=True,
)
app.command()(install)


@app.command(hidden=True)
def show(  # noqa: PLR0917 - typer reads options from parameters
    subject: Annotated[
        str, typer.Argument(help="user:user_…, membership:org_…/user_…, an e-mail address, external:….")
    ],
    organization: Annotated[str, typer.Option(help="The active organization: org_….", metavar="ORG")] = "",
    template: Annotated[str, typer.Option(help="A JWT template, instead of the session token.", metavar="NAME")] = "",
    claims: Annotated[
        Path | None,
        typer.Option(help="A JSON file with the claims of your session token.", metavar="FILE", dir_okay=False),
    ] = None,
    token: Annotated[
        bool, typer.Option("--token", help="Compare with a real token. Development instances only.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Render the claims of a person's token over what Clerk holds, and name what is wrong.

    Without --template and --claims, these are the claims that `sync-worker claims install` prints for the session
    token. --token creates a session, compares the claims with those of its real token, and ends the session.

    For JWT templates see also `sync-worker claims install --help`.

    Exit codes: 0 nothing is wrong, 1 error, 2 findings.

    Example: sync-worker claims user:user_2abc --token
    """
    from sync_worker.errors import ConfigurationError

    settings = begin()
    if template and claims is not None:
        raise CommandFailed("--template and --claims exclude each other. Pass one of them.")
    if token and not settings.clerk_secret_key.get_secret_value().startswith("sk_test_"):
        raise ConfigurationError(
            "--token works on development instances only, and CLERK_SECRET_KEY is a live key. Leave out --token, or "
            "use the key of a development instance."
        )
    given = None if claims is None else _read(claims)
    report = asyncio.run(_show(settings, subject, organization, template, given, token=token))
    _print(report, template, as_json=as_json)
    raise typer.Exit(FINDINGS if report["findings"] else 0)


def _read(file: Path) -> dict[str, Any]:
    try:
        claims = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise CommandFailed(f"{file} cannot be read: {error.strerror}. Check --claims.") from None
    except ValueError:
        raise CommandFailed(f"{file} is not JSON. Copy the claims from Clerk's dashboard again.") from None
    if not isinstance(claims, dict):
        raise CommandFailed(f"{file} is not a JSON object of claims. Copy them from Clerk's dashboard again.")
    return claims


async def _show(
    settings: Settings,
    text: str,
    organization: str,
    template_name: str,
    given: Mapping[str, Any] | None,
    *,
    token: bool,
) -> dict[str, Any]:
    """Return the report, as `--json` prints it."""
    from sync_worker.clerk.claims import compare, examine, shows_all
    from sync_worker.diagnostics.token_proof import NOTE, end_left_sessions, remember_measured, token_claims
    from sync_worker.runtime.wiring import Runtime, open_services, open_store

    async with open_store(settings, Runtime.system()) as store:
        subject = await _person(settings, store, text)
        organization = organization.removeprefix("org:") or subject.organization_id
        left = await store.queue.recall_all(NOTE)
        async with open_services(settings, store, dry_run=not (token or left)) as services:
            await end_left_sessions(services.tokens, store.queue)
            template = await _template(settings, services.tokens, template_name, given)
            person = await services.tokens.person(subject.user_id, organization)
            rendering, proof = examine(template, person, settings.layout), None
            if token:
                began = await store.queue.now()
                signed = await token_claims(services.tokens, store.queue, subject.user_id, organization, template.name)
                proof = compare(rendering, signed, template)
                shown = [o.subject for root, o in person.observed.items() if shows_all(template, root, settings.layout)]
                for one in shown if proof.holds else ():
                    await remember_measured(store.queue, store.ledger, one, began)
    return {
        "subject": str(subject),
        "claims": rendering.claims,
        "bytes": rendering.size,
        "budget": rendering.budget,
        "findings": [asdict(one) for one in (*rendering.findings, *(proof.findings if proof else ()))],
        "token": proof and {"verified": proof.verified, "claims": proof.claims, "differs": list(proof.differs)},
    }


async def _person(settings: Settings, store: Store, text: str) -> Subject:
    """Return the user or membership that an argument names. Raises InvalidSubject for an organization."""
    from sync_worker.cli.targets import keys_of
    from sync_worker.domain.subjects import Kind, Subject
    from sync_worker.errors import InvalidSubject

    keys = await keys_of(settings, store, [str(Subject.parse(text))])
    subject = Subject.parse(keys[0])
    if subject.kind is Kind.ORGANIZATION:
        raise InvalidSubject(f"{subject} does not sign in. Give a member: membership:{subject.id}/user_….")
    return subject


async def _template(settings: Settings, tokens: Tokens, name: str, given: Mapping[str, Any] | None) -> Template:
    from sync_worker.clerk.claims import Template, default_template

    if not name:
        return default_template(settings.layout) if given is None else Template(given)
    templates = await tokens.templates()
    found = next((one for one in templates if one.name == name), None)
    if found is None:
        names = ", ".join(sorted(one.name for one in templates)) or "none"
        create = f"sync-worker claims install --template {name}"
        raise CommandFailed(f"Clerk has no JWT template {name} (it has {names}). Create it: {create}")
    return Template(found.claims, name)


def _print(report: dict[str, Any], template: str, *, as_json: bool) -> None:
    from sync_worker.domain.diff import json_size

    if as_json:
        print_json(_masked(report))
        return
    rows = [(name, _shown(value), json_size({name: value}) - 2) for name, value in report["claims"].items()]
    print_table(("claim", "value", "bytes"), rows, empty="the token has no custom claims")
    budget = report["budget"]
    limit = "no limit: not in a cookie" if budget is None else f"of {budget}"
    echo(f"\n{report['bytes']} bytes, {limit}")
    if report["token"] is not None:
        echo(_token_line(report["token"], template))
    for finding in report["findings"]:
        echo(f"\n{finding['claim'] or 'token'}: {_masked(finding['problem'])}\n→ {_masked(finding['fix'])}")


def _token_line(token: Mapping[str, Any], template: str) -> str:
    if not token["verified"]:
        return "The token could not be verified."
    if token["differs"]:
        return f"The real token differs: {', '.join(token['differs'])}"
    proved = "The real token is verified and has the same claims."
    if template:
        return f"{proved} The app gets a new one with getToken({{template: '{template}', skipCache: true}})."
    return (
        f"{proved} Every session has them within a minute; for one that must have them at once, the app calls "
        "getToken({skipCache: true})."
    )


def _shown(value: object) -> str:
    return str(_masked(json.dumps(value, ensure_ascii=False)))


def _masked(value: Any) -> Any:
    """Mask the e-mail addresses in all texts of a JSON value."""
    from sync_worker.formatting import masked

    if isinstance(value, dict):
        return {name: _masked(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_masked(inner) for inner in value]
    return masked(value) if isinstance(value, str) else value
