"""What happens in Clerk: people come and go, join and leave, and get other addresses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sync_worker.sandbox.clerk_bodies import email_body
from tests.sim.content import EMAILS, EXTERNAL_IDS, ORGANIZATIONS, USERS

if TYPE_CHECKING:
    from tests.sim.world import World


def first_people(world: World) -> None:
    """Let most of them exist from the beginning."""
    for user in (*USERS[:-1], "user_anchor"):
        _create(world, user)
    for organization in ORGANIZATIONS:
        _found(world, organization)
        for user in USERS[:3]:
            _join(world, organization, user)


def sign_up(world: World) -> str:
    missing = [user for user in USERS if user not in world.clerk.api.users]
    if not missing:
        return "nobody is left to sign up"
    user, email = world.random.choice(missing), world.random.choice((None, *EMAILS))
    world.clerk.api.add_user(user, email=email, external_id=_free_external_id(world))
    _is_new(world, f"user:{user}")
    return f"{user} signs up as {email}"


def change_email(world: World) -> str:
    """Give a user another address: verified or not, reserved, or beside the primary one."""
    user = _some_user(world)
    if user is None:
        return "nobody is there to get an address"
    api, random = world.clerk.api, world.random
    email = random.choice((None, *EMAILS))
    if email is None:
        api.update_user(user, email_addresses=[], primary_email_address_id=None)
        return f"{user} has no address any more"
    how = random.choice(("verified", "verified", "verified", "unverified", "reserved", "secondary"))
    body = email_body(api.new_id("idn"), email, api.now(), verified=how != "unverified", reserved=how == "reserved")
    primary = None if how == "secondary" else body["id"]
    api.update_user(user, email_addresses=[body], primary_email_address_id=primary)
    return f"{user} has the {how} address {email}"


def change_external_id(world: World) -> str:
    user = _some_user(world)
    if user is None:
        return "nobody is there to get an external id"
    id_ = _free_external_id(world)
    world.clerk.api.update_user(user, external_id=id_)
    return f"{user} has the external id {id_}"


def delete_user(world: World) -> str:
    user = world.random.choice(USERS)
    if user not in world.clerk.api.users:
        return f"{user} is gone already"
    for organization, member in list(world.clerk.api.memberships):
        if member == user:
            world.unmanaged.pop(f"membership:{organization}/{user}", None)
    world.clerk.api.delete_user(user)
    world.unmanaged.pop(f"user:{user}", None)
    return f"{user} is deleted"


def join(world: World) -> str:
    organization, user = world.random.choice(ORGANIZATIONS), world.random.choice(USERS)
    api = world.clerk.api
    if user not in api.users or organization not in api.organizations or (organization, user) in api.memberships:
        return f"{user} cannot join {organization}"
    _join(world, organization, user)
    return f"{user} joins {organization}"


def leave(world: World) -> str:
    if not world.clerk.api.memberships:
        return "nobody is left to leave"
    organization, user = world.random.choice(sorted(world.clerk.api.memberships))
    world.clerk.api.remove_membership(organization, user)
    world.unmanaged.pop(f"membership:{organization}/{user}", None)
    return f"{user} leaves {organization}"


def close_organization(world: World) -> str:
    """Delete an organization, or found it anew."""
    organization = world.random.choice(ORGANIZATIONS)
    if organization not in world.clerk.api.organizations:
        _found(world, organization)
        return f"{organization} is founded again"
    for of, user in list(world.clerk.api.memberships):
        if of == organization:
            world.unmanaged.pop(f"membership:{of}/{user}", None)
    world.clerk.api.delete_organization(organization)
    world.unmanaged.pop(f"org:{organization}", None)
    return f"{organization} is deleted"


def _some_user(world: World) -> str | None:
    users = [user for user in USERS if user in world.clerk.api.users]
    return world.random.choice(users) if users else None


def _free_external_id(world: World) -> str | None:
    """Return an external id that nobody has: Clerk lets nobody share one."""
    taken = {user["external_id"] for user in world.clerk.api.users.values()}
    return world.random.choice((None, *(id_ for id_ in EXTERNAL_IDS if id_ not in taken)))


def _create(world: World, user: str) -> None:
    world.clerk.api.add_user(user)
    _is_new(world, f"user:{user}")


def _found(world: World, organization: str) -> None:
    world.clerk.api.add_organization(organization)
    _is_new(world, f"org:{organization}")


def _join(world: World, organization: str, user: str) -> None:
    world.clerk.api.add_membership(organization, user, role="org:member")
    _is_new(world, f"membership:{organization}/{user}")


def _is_new(world: World, key: str) -> None:
    world.unmanaged[key] = {"public": {}, "private": {}}
    world.ownership.born(key)
