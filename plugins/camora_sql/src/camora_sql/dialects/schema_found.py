"""What `camora doctor` says of the schema that it finds, of whatever database."""

from __future__ import annotations

from camora.interfaces import CheckResult

from camora_sql.schema import HEAD

__all__ = ["schema_found"]


def schema_found(label: str, revision: str | None, works_with: str, migrate: str) -> CheckResult:
    """For a revision, None for no tables.

    `works_with` is the oldest revision whose code can work with these tables, by their own word, empty where they have
    none; `migrate` is what to type to bring them up to date.
    """
    if revision is None:
        return CheckResult(ok=True, text=f"{label} has no tables of Camora yet; the first use makes them")
    if revision == HEAD:
        return CheckResult(ok=True, text=f"{label} has revision {revision}, the newest")
    if revision < HEAD:
        text = f"{label} has revision {revision}; the next use brings it to {HEAD}"
        return CheckResult(ok=True, text=text, fix=f"or now: {migrate}")
    if works_with and works_with <= HEAD:
        text = f"{label} has revision {revision}, of a newer camora-sql; this one (up to {HEAD}) works with it"
        return CheckResult(ok=True, text=text)
    text = f"{label} has revision {revision}, and this camora-sql knows up to {HEAD}"
    return CheckResult(ok=False, text=text, fix="pip install --upgrade camora-sql")
