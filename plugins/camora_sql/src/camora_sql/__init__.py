"""SQL databases as broker and result backend; SQLite is the embedded, durable default."""

from typing import TYPE_CHECKING

from camora.lazy import names_of

if TYPE_CHECKING:
    from camora_sql.inbox import Inbox

__all__ = ["Inbox"]

if not TYPE_CHECKING:
    __getattr__ = names_of(__name__, {"camora_sql.inbox": ("Inbox",)})
