import pytest

# The suites are no test modules by name: without this their asserts would not explain themselves.
pytest.register_assert_rewrite("tests.contracts.blob_store", "tests.contracts.metadata_store")
