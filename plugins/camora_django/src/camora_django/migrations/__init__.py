"""Django's migrations; the statements are those of camora-sql."""
