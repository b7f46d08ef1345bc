from tests.contracts.databases import OnPostgresql, OnSqlite
from tests.contracts.retention_store import RetentionStoreContract


class TestSqlite(OnSqlite, RetentionStoreContract):
    pass


class TestPostgresql(OnPostgresql, RetentionStoreContract):
    pass
