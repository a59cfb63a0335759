"""Every statement, written in SQLAlchemy Core and compiled once to the text that the driver executes.

A *builder* makes a statement for `size` rows, ids or queues, and says in which order its values are bound. What
databases say differently, they say in their `Dialect`.
"""

from __future__ import annotations

from camora_sql.statements.compiling import Statements
from camora_sql.statements.inspecting import (
    count_jobs,
    count_letters,
    delete_jobs,
    find_job,
    flag,
    list_jobs,
    paused_queues,
    read_for_cancel,
    set_paused,
    some_ready,
    some_scheduled,
)
from camora_sql.statements.lending import cancelled, claim, extend_held, lapse, outlook, promote
from camora_sql.statements.letters import (
    delete_letters,
    end_leases,
    key_of_letter,
    letters_among,
    list_letters,
    list_letters_of,
    read_fact,
    read_letter,
    requeue_letter,
    some_letters,
    some_letters_of,
    write_fact,
)
from camora_sql.statements.parts import Builder
from camora_sql.statements.publishing import (
    free_key,
    holder_of_key,
    insert_jobs,
    is_job,
    is_over,
    keep_key,
    retake_key,
    take_key,
)
from camora_sql.statements.records import (
    delete_records,
    prune_done,
    prune_keys,
    prune_results,
    put_records,
    read_finished,
    read_records,
)
from camora_sql.statements.settling import (
    bury,
    delete_held,
    read_held,
    release_held,
    release_now,
    remember,
    retry_held,
    still_held,
)

__all__ = [
    "Builder",
    "Statements",
    "bury",
    "cancelled",
    "claim",
    "count_jobs",
    "count_letters",
    "delete_held",
    "delete_jobs",
    "delete_letters",
    "delete_records",
    "end_leases",
    "extend_held",
    "find_job",
    "flag",
    "free_key",
    "holder_of_key",
    "insert_jobs",
    "is_job",
    "is_over",
    "keep_key",
    "key_of_letter",
    "lapse",
    "letters_among",
    "list_jobs",
    "list_letters",
    "list_letters_of",
    "outlook",
    "paused_queues",
    "promote",
    "prune_done",
    "prune_keys",
    "prune_results",
    "put_records",
    "read_fact",
    "read_finished",
    "read_for_cancel",
    "read_held",
    "read_letter",
    "read_records",
    "release_held",
    "release_now",
    "remember",
    "requeue_letter",
    "retake_key",
    "retry_held",
    "set_paused",
    "some_letters",
    "some_letters_of",
    "some_ready",
    "some_scheduled",
    "still_held",
    "take_key",
    "write_fact",
]
