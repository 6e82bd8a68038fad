"""The claims of a person's token: rendered over what Clerk holds, and what is wrong with them. Pure.

An app reads access from these claims. A wrong shortcode denies access to everybody, while Clerk holds the right values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sync_worker.clerk.shortcodes import Shortcode, has_loose_braces, render, shortcodes
from sync_worker.domain.diff import json_size, managed_values, values_in_place
from sync_worker.domain.entitlements import Placement
from sync_worker.domain.ownership import same_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sync_worker.domain.entitlements import Layout, Observed

RESERVED = frozenset({"azp", "exp", "iat", "iss", "jti", "nbf", "sub"})
"""The claims that every token has, and that no template may name."""
SESSION_CLAIMS = frozenset({"sid", "v", "pla", "fea", "o", "ou", "uo", "sts", "fva", "act", "org_id"})
"""The claims that Clerk adds to session tokens beside those."""
METADATA = {"user": "user", "org": "organization", "org_membership": "membership"}
"""The roots with managed keys, by what they are for people."""


@dataclass(frozen=True, slots=True)
class Template:
    """The claims of a session token, or of the JWT template `name`."""

    claims: Mapping[str, Any]
    name: str = ""

    @property
    def reserved(self) -> frozenset[str]:
        """The claims that Clerk sets itself, also when the template names them."""
        return RESERVED if self.name else RESERVED | SESSION_CLAIMS

    @property
    def own(self) -> Mapping[str, Any]:
        """The claims that Clerk renders: all but those that it sets itself."""
        return {name: value for name, value in self.claims.items() if name not in self.reserved}


@dataclass(frozen=True, slots=True)
class Person:
    """What Clerk knows when it signs a token.

    `roots` is what shortcodes can name: `user`, and with an active organization `org` and `org_membership`. `observed`
    is the metadata of each root.
    """

    roots: Mapping[str, Any]
    observed: Mapping[str, Observed] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with a claim, and how to correct it. Nested claims are joined with dots."""

    claim: str
    problem: str
    fix: str


@dataclass(frozen=True, slots=True)
class Rendering:
    """The claims of one person. `budget` is None for a JWT template, whose tokens are in no cookie."""

    claims: Mapping[str, Any]
    size: int
    budget: int | None
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Proof:
    """The claims of a real token, None if it could not be verified, and those that differ from the rendered ones."""

    claims: Mapping[str, Any] | None
    differs: tuple[str, ...]
    findings: tuple[Finding, ...]

    @property
    def verified(self) -> bool:
        """Whether the instance's keys verify the token."""
        return self.claims is not None

    @property
    def holds(self) -> bool:
        """Whether the token has the rendered claims."""
        return self.verified and not self.differs


def default_template(layout: Layout) -> Template:
    """Return the claims that show every public managed key, as deploy/clerk/session-token.json does."""
    prefix = f"{layout.namespace}." if layout.namespace else ""
    names = [f.name for f in layout.fields if f.placement is Placement.PUBLIC]
    return Template({name: f"{{{{user.public_metadata.{prefix}{name}}}}}" for name in names})


def shows_all(template: Template, root: str, layout: Layout) -> bool:
    """Return whether a session token shows every public managed key of `user`, `org` or `org_membership`."""
    first = {one.operands[0] for _, text in _texts(template.own) for one in shortcodes(text)}
    names = [field.name for field in layout.fields if field.placement is Placement.PUBLIC]
    metadata = ".".join(filter(None, (root, "public_metadata", layout.namespace)))
    return not template.name and bool(names) and first.issuperset(f"{metadata}.{name}" for name in names)


def examine(template: Template, person: Person, layout: Layout) -> Rendering:
    """Render the claims of a person, and return them with everything that is wrong."""
    rendered: dict[str, Any] = render(template.own, person.roots)
    size = json_size(rendered)
    budget = None if template.name else layout.claims_budget
    findings = [
        *_reserved(template),
        *(
            finding
            for claim, text in _texts(template.own)
            for finding in _shortcode_findings(claim, text, person, layout)
        ),
        *_over_budget(rendered, size, budget),
    ]
    return Rendering(rendered, size, budget, tuple(findings))


def compare(rendering: Rendering, signed: Mapping[str, Any] | None, template: Template) -> Proof:
    """Compare the claims of a real token; `signed` is None for one that the instance's keys do not verify."""
    if signed is None:
        fix = "Check CLERK_API_URL and the clock of this machine, then run this again."
        return Proof(None, (), (Finding("", "the keys of the instance do not verify the token", fix),))
    mine = rendering.claims
    theirs = {name: value for name, value in signed.items() if name not in template.reserved}
    differs = tuple(
        name
        for name in sorted(mine.keys() | theirs.keys())
        if (name in mine) is not (name in theirs) or not same_json(mine.get(name), theirs.get(name))
    )
    fix = (
        f"Run: sync-worker claims install --template {template.name}"
        if template.name
        else "Enter these claims in Clerk under Sessions, Customize session token, or pass yours with --claims."
    )
    return Proof(signed, differs, tuple(Finding(name, _difference(name, mine, theirs), fix) for name in differs))


def _difference(name: str, mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    if name not in theirs:
        return "the real token does not have this claim"
    return "the real token has another value" if name in mine else "only the real token has this claim"


def _texts(value: Any, claim: str = "") -> Iterator[tuple[str, str]]:
    """Yield every text of a template with the name of its claim."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _texts(inner, f"{claim}.{name}" if claim else str(name))
    elif isinstance(value, str):
        yield claim, value
    elif isinstance(value, Sequence):
        for inner in value:
            yield from _texts(inner, claim)


def _reserved(template: Template) -> Iterator[Finding]:
    for name in template.claims:
        if name in template.reserved:
            yield Finding(name, "Clerk sets this claim itself, so yours is refused or ignored", "Rename the claim.")


def _shortcode_findings(claim: str, text: str, person: Person, layout: Layout) -> Iterator[Finding]:
    if has_loose_braces(text):
        yield Finding(claim, f"{text} has braces that belong to no shortcode", "Write {{user.public_metadata.…}}.")
    for shortcode in shortcodes(text):
        if not shortcode.is_resolved:
            yield Finding(claim, f"{shortcode} stays in the token as text", _resolvable(shortcode))
        elif any("private_metadata" in path for path in shortcode.paths):
            fix = "Keep the key out of PRIVATE_FIELDS and read it from public_metadata, or remove the claim."
            yield Finding(claim, f"{shortcode} names private metadata, which no token shows", fix)
        elif all(Shortcode(".".join(path)).value(person.roots) is None for path in shortcode.paths):
            yield from _null(claim, shortcode, person, layout)


def _resolvable(shortcode: Shortcode) -> str:
    expression = shortcode.expression.replace("organization_membership.", "org_membership.")
    corrected = Shortcode(expression.replace("organization.", "org."))
    if corrected.is_resolved:
        return f"Write {corrected}."
    return "Begin it with user., org. or org_membership., and quote text as in {{user.public_metadata.plan || 'free'}}."


def _null(claim: str, shortcode: Shortcode, person: Person, layout: Layout) -> Iterator[Finding]:
    """Yield a finding where the shortcode finds nothing, but the metadata it names has the managed key."""
    for root, *path in shortcode.paths:
        observed = person.observed.get(root)
        if observed is None:
            continue
        named = {_folded(claim.rpartition(".")[2]), _folded(path[-1] if path else "")}
        held = {**values_in_place(observed, layout), **managed_values(observed, layout)}
        for slot in layout.slots:
            if _folded(slot.name) in named and slot.name in held:
                problem = f"{shortcode} finds nothing, but the {METADATA[root]} has {slot.name}"
                yield Finding(claim, problem, _path_fix(root, slot.placement, str(slot.namespace or ""), slot.name))
                return


def _path_fix(root: str, placement: Placement, namespace: str, name: str) -> str:
    if placement is Placement.PRIVATE:
        return f"{name} is in PRIVATE_FIELDS, and no token shows private metadata: take it out, or remove the claim."
    return f"Write {{{{{'.'.join(filter(None, (root, 'public_metadata', namespace, name)))}}}}}."


def _folded(name: str) -> str:
    return name.replace("_", "").replace("-", "").casefold()


def _over_budget(rendered: Mapping[str, Any], size: int, budget: int | None) -> Iterator[Finding]:
    if budget is None or size <= budget:
        return
    largest = max(rendered, key=lambda name: json_size(rendered[name]))
    yield Finding(
        largest,
        f"the claims take {size} bytes, and the budget is {budget}: a session cookie breaks above about 1.2 KB",
        "Group courses under plans, read them by a JWT template, or add courseSlugs to PRIVATE_FIELDS.",
    )
