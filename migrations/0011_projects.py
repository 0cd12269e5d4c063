"""Projects, to which jobs, analyses and keys belong.

Each owner continues to see only their own rows: the rows of the owner `local` go to the project `default`, those of any
other owner to the project of that name. The owner named `default`, if any, gets the project `local`, so that no two
owners share one.

During an upgrade, the release before runs on this schema, and it has owners only. Triggers set the project of the rows
that it inserts, and hide the jobs that it deletes (it gives them to the owner with the empty name). The columns have to
be nullable for that. A later migration can drop the triggers and declare the columns NOT NULL.
"""

# ruff: noqa: S608 - the statements are composed of constants of this file

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa
from alembic import op
from sqlalchemy.types import TypeEngine

revision: str = "0011"
down_revision: str | None = "0010"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


@dataclass(frozen=True)
class Belonging:
    """A table whose rows belong to a project, its key, and the second column of its index by owner or project."""

    name: str
    key: str
    second: str


TABLES: Final = (
    Belonging("job", "id", "id"),
    Belonging("job_state", "job_id", "status"),
    Belonging("api_key", "id", "id"),
)
FUNCTION: Final = "basin_project_of_owner"


def upgrade() -> None:
    op.create_table(
        "project",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("created_at", _number(), nullable=False),
        sa.Column("created_by", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_project"),
        sqlite_strict=True,
    )
    op.execute(f"INSERT INTO project VALUES ('default', {_now()}, 'local')")
    for table in TABLES:
        op.add_column(table.name, sa.Column("project", sa.Text))
        op.execute(f"UPDATE {table.name} SET project = {_project_of('owner')}")
        op.drop_index(f"ix_{table.name}_owner_{table.second}", table.name)
        op.create_index(f"ix_{table.name}_project_{table.second}", table.name, ["project", table.second])
    owners = "SELECT owner, project FROM job UNION SELECT owner, project FROM api_key"
    others = f"SELECT project, {_now()}, owner FROM ({owners}) AS known WHERE owner NOT IN ('', 'local')"
    op.execute(f"INSERT INTO project {others}")
    if _on_postgresql():
        _create_postgresql_triggers()
    else:
        _create_sqlite_triggers()


def downgrade() -> None:
    for table in TABLES:
        for when in ("insert", "delete"):
            where = f" ON {table.name}" if _on_postgresql() else ""
            op.execute(f"DROP TRIGGER {table.name}_project_{when}{where}")
        op.drop_index(f"ix_{table.name}_project_{table.second}", table.name)
        op.create_index(f"ix_{table.name}_owner_{table.second}", table.name, ["owner", table.second])
        op.drop_column(table.name, "project")
    if _on_postgresql():
        op.execute(f"DROP FUNCTION {FUNCTION}()")
    op.drop_table("project")


def _create_postgresql_triggers() -> None:
    op.execute(
        f"CREATE FUNCTION {FUNCTION}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"NEW.project := {_project_of('NEW.owner')}; "
        "IF NEW.owner <> '' THEN INSERT INTO project "
        f"VALUES (NEW.project, {_now()}, NEW.owner) ON CONFLICT DO NOTHING; END IF; "
        "RETURN NEW; END $$"
    )
    for table in TABLES:
        row = f"ON {table.name} FOR EACH ROW WHEN"
        run = f"EXECUTE FUNCTION {FUNCTION}()"
        unnamed = "(NEW.project IS NULL AND NEW.owner IS NOT NULL)"
        op.execute(f"CREATE TRIGGER {table.name}_project_insert BEFORE INSERT {row} {unnamed} {run}")
        op.execute(f"CREATE TRIGGER {table.name}_project_delete BEFORE UPDATE OF owner {row} (NEW.owner = '') {run}")


def _create_sqlite_triggers() -> None:
    project = _project_of("NEW.owner")
    know = f"INSERT OR IGNORE INTO project VALUES ({project}, {_now()}, NEW.owner);"
    for table in TABLES:
        name, row = f"{table.name}_project", f"ON {table.name} FOR EACH ROW WHEN"
        fill = f"UPDATE {table.name} SET project = {project} WHERE {table.key} = NEW.{table.key};"
        unnamed = "NEW.project IS NULL AND NEW.owner IS NOT NULL"
        op.execute(f"CREATE TRIGGER {name}_insert AFTER INSERT {row} {unnamed} BEGIN {know} {fill} END")
        op.execute(f"CREATE TRIGGER {name}_delete AFTER UPDATE OF owner {row} NEW.owner = '' BEGIN {fill} END")


def _project_of(owner: str) -> str:
    """core.jobs.projects.project_of_owner as an SQL expression of a column."""
    return f"CASE {owner} WHEN 'local' THEN 'default' WHEN 'default' THEN 'local' ELSE {owner} END"


def _now() -> str:
    if _on_postgresql():
        return "CAST(extract(epoch FROM clock_timestamp()) AS double precision)"
    return "((julianday('now') - 2440587.5) * 86400.0)"


def _number() -> TypeEngine[float]:
    return sa.Double().with_variant(sa.REAL(), "sqlite")


def _on_postgresql() -> bool:
    return op.get_bind().dialect.name == "postgresql"
