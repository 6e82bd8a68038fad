"""`webhook show`: what to enter in Sanity."""

from __future__ import annotations

from typing import Annotated

import typer

from sync_worker.cli.output import AsJson, print_json

app = typer.Typer(help="The webhook that Sanity posts to us.", no_args_is_help=True)
API_VERSION = "v2021-03-25"
"""The API version that delta functions need; the version of Sanity's own default."""


@app.callback()
def _group() -> None:
    """Keep `show` a verb of its own while it is the only one."""


@app.command()
def show(
    url: Annotated[str, typer.Option(help="Where Sanity reaches this program.")] = "https://YOUR-HOST/webhooks/sanity",
    as_json: AsJson = False,
) -> None:
    """Print the filter, the projection and the request that creates the webhook.

    Example: sync-worker webhook show --url https://sync.example.com/webhooks/sanity
    """
    from sync_worker.sanity import Queries
    from sync_worker.settings import load_settings

    settings = load_settings()
    queries = Queries.load(settings.groq_folder)
    hook = {
        "type": "document",
        "name": "sync-worker",
        "description": "Tells sync-worker which entitlements may have changed.",
        "url": url,
        "dataset": settings.sanity_dataset,
        "apiVersion": API_VERSION,
        "httpMethod": "POST",
        "includeDrafts": False,
        "includeAllVersions": False,
        "headers": {},
        "secret": "the value of SANITY_WEBHOOK_SECRET",
        "rule": {
            "on": ["create", "update", "delete"],
            "filter": queries.webhook_filter,
            "projection": queries.webhook_projection,
        },
    }
    if as_json:
        print_json(hook)
        return
    project = settings.sanity_project_id
    typer.echo(f"Create a webhook under https://www.sanity.io/manage/project/{project}/api with\n")
    typer.echo(f"URL         {url}\nDataset     {settings.sanity_dataset}\nTrigger on  create, update, delete")
    typer.echo("Drafts      off\nVersions    off\nMethod      POST\nSecret      the value of SANITY_WEBHOOK_SECRET\n")
    typer.echo(f"Filter\n\n{queries.webhook_filter}\n\nProjection\n\n{queries.webhook_projection}\n")
    typer.echo(f"or POST this to https://api.sanity.io/v2021-10-04/hooks/projects/{project}\n")
    print_json(hook)
