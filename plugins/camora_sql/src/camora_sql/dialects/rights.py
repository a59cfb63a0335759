"""What a user lacks, and the statements that give it: of one who makes the tables, or of one who works with them."""

from __future__ import annotations

import re

__all__ = ["mysql_to_make", "mysql_to_work", "postgresql_to_make", "postgresql_to_work"]

_PLAIN = re.compile(r"[a-z_][a-z0-9_]*")
_ROWS = "SELECT, INSERT, UPDATE, DELETE"


def postgresql_to_make(text: str, user: str, schema: str | None) -> str:
    """For one who may not make or change tables; `text` is the server's."""
    return (
        f"this user lacks a right to make or change tables: {text}. Let it (GRANT CREATE ON SCHEMA "
        f"{schema or 'public'} TO {_role(user)}), or have somebody run who may, or who made them: "
        "camora sql migrate --url …"
    )


def postgresql_to_work(text: str, user: str, schema: str | None) -> str:
    """For one who may not use tables that are there."""
    where, role = schema or "public", _role(user)
    return (
        f"this user lacks a right: {text}. Have who made the tables give it: GRANT USAGE ON SCHEMA {where} TO {role}; "
        f"GRANT {_ROWS} ON ALL TABLES IN SCHEMA {where} TO {role}; "
        f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA {where} TO {role}; "
        f"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA {where} TO {role};"
    )


def mysql_to_make(text: str, user: str, database: str) -> str:
    """For one who may not make or change tables."""
    return (
        f"this user lacks a right to make or change tables: {text}. Let it (GRANT ALL ON `{database}`.* TO "
        f"{_account(user)}), or have somebody run who may: camora sql migrate --url …"
    )


def mysql_to_work(text: str, user: str, database: str) -> str:
    """For one who may not use tables; where it may not, the server does not tell whether they are there."""
    return (
        f"this user lacks a right: {text}. Where the tables are there, give it: GRANT {_ROWS} ON `{database}`.* TO "
        f"{_account(user)}; where they are not, have somebody run who may make them: camora sql migrate --url …"
    )


def _role(user: str) -> str:
    if not user:
        return "…"
    return user if _PLAIN.fullmatch(user) else '"' + user.replace('"', '""') + '"'


def _account(user: str) -> str:
    quoted = user.replace("'", "''")
    return f"'{quoted}'@'%'" if user else "…"
