from tests.contracts.databases import OnPooledPostgresql, OnPostgresql, OnSqlite
from tests.contracts.metadata_store import MetadataStoreContract


class TestSqlite(OnSqlite, MetadataStoreContract):
    pass


class TestPostgresql(OnPostgresql, MetadataStoreContract):
    pass


class TestPostgresqlBehindATransactionPooler(OnPooledPostgresql, MetadataStoreContract):
    pass
