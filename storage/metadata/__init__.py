"""The metadata store: references in a database, through SQLAlchemy."""
