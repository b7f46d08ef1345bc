from tests.contracts.asked_store import AskedStoreContract
from tests.contracts.databases import OnPostgresql, OnSqlite


class TestSqlite(OnSqlite, AskedStoreContract):
    pass


class TestPostgresql(OnPostgresql, AskedStoreContract):
    pass
