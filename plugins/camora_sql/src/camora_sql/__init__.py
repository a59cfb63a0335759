"""SQL databases as broker and result backend; SQLite is the embedded, durable default."""
