"""All SQL of the store: SQLAlchemy Core over the ORM tables, built once."""
