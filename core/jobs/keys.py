"""API keys: `bsn_<id>_<secret>`, the secret 256 random bits of which only the SHA-256 is kept.

A key belongs to one project: its scopes hold there and nowhere else. Jobs made with a key have the key's owner.
Revoked keys stay as rows: a service that once had a key never again serves requests without one.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Row, Select, insert, or_, select, update

from core.db.session import Database, database_now
from core.db.tables import api_key
from core.errors import FieldProblem, InvalidRequest, NotFound
from core.ids import encode_base32, new_id
from core.jobs.attempt.state import Fits, require_version
from core.jobs.projects import ensure_project, require_project
from core.settings import Limits

SCOPES: Final = ("read", "write", "admin")
TOUCH_SECONDS: Final = 60.0  # resolution of `last_used_at`, in seconds
_SHAPE: Final = re.compile(r"bsn_([0-7][0-9a-hjkmnp-tv-z]{25})_([0-9a-hjkmnp-tv-z]{52})")
_NOBODYS: Final = "0" * 64  # compared with when there is no such key, so that the check always takes the same time


@dataclass(frozen=True, slots=True)
class Key:
    """A key as its project sees it; times are unix seconds. `lasts`: seconds until it expires; None: no expiry."""

    id: str
    owner: str
    project: str
    name: str | None
    prefix: str
    scopes: tuple[str, ...]
    limits: Limits
    created_at: float
    expires_at: float | None
    revoked_at: float | None
    last_used_at: float | None
    sha256: str
    lasts: float | None
    idle: float | None

    @property
    def status(self) -> str:
        """Active, expired or revoked."""
        if self.revoked_at is not None:
            return "revoked"
        return "active" if self.lasts is None or self.lasts > 0 else "expired"


def create_key(  # noqa: PLR0913 - the fields of a key
    db: Database,
    *,
    owner: str,
    name: str | None = None,
    scopes: Collection[str] = ("read", "write"),
    limits: Limits | None = None,
    expires_at: float | None = None,
    lasts: float | None = None,
    project: str | None = None,
) -> tuple[Key, str]:
    """A new key and its text, which is not stored. It expires at `expires_at` (unix seconds), or after `lasts` seconds.

    Without a `project` it belongs to the owner's own, which is created with the first such key.

    Raises:
        InvalidRequest: no owner, no such scope, no such project, or an expiry in the past.
    """
    known = tuple(scope for scope in SCOPES if scope in scopes)
    if not known or len(known) != len(set(scopes)) or not owner.strip():
        raise InvalidRequest(f"A key needs an owner and some of the scopes {', '.join(SCOPES)}.")
    key_id, secret = new_id("key"), encode_base32(secrets.randbits(128)) + encode_base32(secrets.randbits(128))
    bare = key_id.removeprefix("key_")
    values = {
        "id": key_id,
        "owner": owner,
        "name": name,
        "prefix": f"bsn_{bare}",
        "sha256": hash_secret(secret),
        "scopes": list(known),
        "limits": (limits or Limits()).model_dump(exclude_none=True),
        "created_at": database_now(),
        "expires_at": expires_at if lasts is None else database_now() + lasts,
    }
    with db.write() as connection:
        if project is not None:
            require_project(connection, project)
        home = project or ensure_project(connection, owner)
        connection.execute(insert(api_key).values(**values, project=home))
        key = _as_key(connection.execute(_select_keys().where(api_key.c.id == key_id)).one())
        if key.status != "active":
            raise InvalidRequest(errors=(FieldProblem("/expires_at", "is in the past"),))
    return key, f"bsn_{bare}_{secret}"


def list_keys(db: Database, owner: str | None = None, project: str | None = None) -> list[Key]:
    """The keys of an owner, of a project, or all of them, oldest first; revoked ones too."""
    query = _select_keys().order_by(api_key.c.id)
    for column, wanted in ((api_key.c.owner, owner), (api_key.c.project, project)):
        if wanted is not None:
            query = query.where(column == wanted)
    with db.read() as connection:
        return [_as_key(row) for row in connection.execute(query)]


def get_key(db: Database, project: str | None, key_id: str) -> Key:
    """One key, of this project or of any.

    Raises:
        NotFound: there is no such key of this project.
    """
    key = find_key(db, key_id)
    if key is None or project not in {None, key.project}:
        raise NotFound("There is no key with this id.")
    return key


def revoke_key(db: Database, project: str | None, key_id: str, fits: Fits | None = None) -> Key:
    """Revoke a key. Revoking it twice is the same.

    Raises:
        NotFound: there is no such key of this project.
        PreconditionFailed: `fits` does not take its version.
    """
    get_key(db, project, key_id)
    with db.write() as connection:
        locked = select(api_key.c.revoked_at).where(api_key.c.id == key_id).with_for_update()
        revoked_at = connection.execute(locked).scalar_one()
        require_version(fits, key_version(revoked_at))
        if revoked_at is None:
            connection.execute(update(api_key).where(api_key.c.id == key_id).values(revoked_at=database_now()))
    return get_key(db, project, key_id)


def key_version(revoked_at: float | None) -> int:
    """The version of a key for conditional requests: it changes with its revocation, not with its use or its age."""
    return int(revoked_at is not None)


def find_key(db: Database, key_id: str) -> Key | None:
    """The key with this id, also a revoked or expired one."""
    with db.read() as connection:
        row = connection.execute(_select_keys().where(api_key.c.id == key_id)).one_or_none()
    return None if row is None else _as_key(row)


def key_was_made(db: Database) -> bool:
    """Whether a key was ever created."""
    with db.read() as connection:
        return connection.execute(select(api_key.c.id).limit(1)).first() is not None


def key_is_active(db: Database) -> bool:
    """Whether there is an active key."""
    row = api_key.c
    active = row.revoked_at.is_(None) & or_(row.expires_at.is_(None), row.expires_at > database_now())
    with db.read() as connection:
        return connection.execute(select(row.id).where(active).limit(1)).first() is not None


def record_key_use(db: Database, key_id: str) -> None:
    """Store that the key is used now; written once a minute at most, over all processes."""
    row = api_key.c
    stale = or_(
        row.last_used_at.is_(None), row.last_used_at < database_now() - TOUCH_SECONDS, row.last_used_at > database_now()
    )
    with db.write() as connection:
        connection.execute(update(api_key).where(row.id == key_id, stale).values(last_used_at=database_now()))


def parse_key(text: str) -> tuple[str, str] | None:
    """The id and the secret in the text of a key; None when the text cannot be one."""
    match = _SHAPE.fullmatch(text) if len(text) < 200 else None
    return None if match is None else (f"key_{match[1]}", match[2])


def secret_matches(key: Key | None, secret: str) -> bool:
    """Whether the secret is this key's. Takes the same time when there is no key."""
    return hmac.compare_digest(hash_secret(secret), _NOBODYS if key is None else key.sha256) and key is not None


def hash_secret(secret: str) -> str:
    """SHA-256 of the secret. 256 random bits need no salt and no slow hash: they cannot be guessed."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _select_keys() -> Select[Any]:
    row = api_key.c
    columns = (
        row.id,
        row.owner,
        row.project,
        row.name,
        row.prefix,
        row.scopes,
        row.limits,
        row.created_at,
        row.expires_at,
    )
    ages = ((row.expires_at - database_now()).label("lasts"), (database_now() - row.last_used_at).label("idle"))
    return select(*columns, row.revoked_at, row.last_used_at, row.sha256, *ages)


def _as_key(row: Row[Any]) -> Key:
    columns = row._asdict()
    columns |= {"scopes": tuple(row.scopes), "limits": Limits(**row.limits)}
    return Key(**columns)
