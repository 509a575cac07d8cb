"""Counts the annotations of each project with triggers of the database, because `/status` asks every few seconds.

The database keeps the counts, so they are right whichever program changes a row, earlier versions included. On
PostgreSQL a trigger waits for the end of its transaction: until then the transaction locks no counts, so two transactions
that change the same annotations in different orders do not deadlock over them.
"""

from __future__ import annotations

from sqlalchemy import Connection, and_, literal_column, or_, text
from sqlalchemy.orm import Mapped, mapped_column

from refcut_backend.database.tables import AnnotationState, Base, LabelStudioId


class AnnotationCount(Base):
    """Numbers of a project's annotations that a training can use, and of those that are new."""

    __tablename__ = "annotation_counts"

    project_id: Mapped[LabelStudioId] = mapped_column(primary_key=True)
    annotations: Mapped[int]
    new_annotations: Mapped[int]


CAN_TEACH = AnnotationState.mask_regions > literal_column("0")
"""Whether a training can use an annotation. The number is part of the text, as `indexes.py` needs it."""
IS_NEW = and_(
    CAN_TEACH,
    or_(
        AnnotationState.trained_until.is_(None),
        # Not "earlier": Label Studio's clock goes back when it was wrong, or when a backup is restored.
        AnnotationState.trained_until != AnnotationState.updated_at,
    ),
)
"""Whether no training has seen an annotation in its present state."""

_TRIGGER = "annotation_counts_change"


def _counted(row: str) -> tuple[str, str]:
    """SQL for what a row adds to the two counts; `row` is OLD or NEW. The same conditions as above."""
    can_teach = f"{row}.mask_regions > 0"
    is_new = f"({row}.trained_until IS NULL OR {row}.trained_until <> {row}.updated_at)"
    return (
        f"CASE WHEN {can_teach} THEN 1 ELSE 0 END",
        f"CASE WHEN {can_teach} AND {is_new} THEN 1 ELSE 0 END",
    )


_BEFORE, _NEW_BEFORE = _counted("OLD")
_AFTER, _NEW_AFTER = _counted("NEW")


def _add(annotations: str, new_annotations: str) -> str:
    return f"""
    INSERT INTO annotation_counts (project_id, annotations, new_annotations)
    VALUES (NEW.project_id, {annotations}, {new_annotations})
    ON CONFLICT (project_id) DO UPDATE SET
        annotations = annotation_counts.annotations + excluded.annotations,
        new_annotations = annotation_counts.new_annotations + excluded.new_annotations;"""


_SUBTRACT = f"""
    UPDATE annotation_counts
    SET annotations = annotations - ({_BEFORE}), new_annotations = new_annotations - ({_NEW_BEFORE})
    WHERE project_id = OLD.project_id;"""
"""After a deletion. Changes no row if the project itself is deleted together with its annotations."""

_CHANGES = f"({_AFTER}) - ({_BEFORE})", f"({_NEW_AFTER}) - ({_NEW_BEFORE})"
_COUNTED_COLUMNS = "mask_regions, trained_until, updated_at"

_ON_SQLITE = (
    f"CREATE TRIGGER {_TRIGGER}_insert AFTER INSERT ON annotation_states BEGIN {_add(_AFTER, _NEW_AFTER)} END",
    f"""CREATE TRIGGER {_TRIGGER}_update AFTER UPDATE OF {_COUNTED_COLUMNS} ON annotation_states
    WHEN {_CHANGES[0]} <> 0 OR {_CHANGES[1]} <> 0 BEGIN {_add(*_CHANGES)} END""",
    f"CREATE TRIGGER {_TRIGGER}_delete AFTER DELETE ON annotation_states BEGIN {_SUBTRACT} END",
)
_ON_POSTGRESQL = (
    f"""CREATE OR REPLACE FUNCTION {_TRIGGER}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF TG_OP = 'INSERT' THEN {_add(_AFTER, _NEW_AFTER)}
    ELSIF TG_OP = 'DELETE' THEN {_SUBTRACT}
    ELSIF {_CHANGES[0]} <> 0 OR {_CHANGES[1]} <> 0 THEN {_add(*_CHANGES)}
    END IF;
    RETURN NULL; END $$""",
    f"""CREATE CONSTRAINT TRIGGER {_TRIGGER} AFTER INSERT OR DELETE OR UPDATE OF {_COUNTED_COLUMNS}
    ON annotation_states DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION {_TRIGGER}()""",
)
_COUNT_ALL = f"""
    INSERT INTO annotation_counts (project_id, annotations, new_annotations)
    SELECT OLD.project_id, SUM({_BEFORE}), SUM({_NEW_BEFORE}) FROM annotation_states AS OLD GROUP BY OLD.project_id"""


def count_annotations(connection: Connection) -> None:
    """Adds the triggers, if they are missing, and counts what is there. Nobody writes annotations meanwhile."""
    if _has_triggers(connection):
        return
    on_sqlite = connection.dialect.name == "sqlite"
    if on_sqlite:
        # The driver begins no transaction for triggers.
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        if _has_triggers(connection):
            return
    for statement in _ON_SQLITE if on_sqlite else _ON_POSTGRESQL:
        connection.execute(text(statement))
    connection.execute(text("DELETE FROM annotation_counts"))
    connection.execute(text(_COUNT_ALL))


def _has_triggers(connection: Connection) -> bool:
    if connection.dialect.name == "sqlite":
        found = text("SELECT 1 FROM sqlite_master WHERE type = 'trigger' AND name = :name")
        return connection.scalar(found, {"name": f"{_TRIGGER}_insert"}) is not None
    found = text(
        "SELECT 1 FROM pg_trigger WHERE tgname = :name AND tgrelid = CAST('annotation_states' AS regclass)"
    )
    return connection.scalar(found, {"name": _TRIGGER}) is not None
