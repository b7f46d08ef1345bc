"""Buckets of the clouds, by URL: S3 and what speaks like it, Google Cloud Storage, Azure Blob Storage.

Credentials, regions and endpoints come from the variables that each cloud's own tools read.
"""

import os
import re
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, S3Store

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig  # names of its stubs alone

Bucket = S3Store | GCSStore | AzureStore

_KINDS: dict[str, type[S3Store] | type[GCSStore] | type[AzureStore]] = {
    "s3": S3Store,
    "gs": GCSStore,
    "az": AzureStore,
}
# Where these say http://, as stores in the same cluster may be reached, the client has to be told that it is meant.
_ENDPOINTS = (
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT",
    "GOOGLE_BASE_URL",
    "AZURE_STORAGE_ENDPOINT",
    "AZURE_ENDPOINT",
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_PREFIX = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")

CONNECT_TIMEOUT = timedelta(seconds=3)
READ_TIMEOUT = timedelta(seconds=20)
"""How long a store may stay silent: before an answer, which includes taking in one part, and within one."""
_REQUEST_TIMEOUT = timedelta(hours=1)
"""How long one answer may take in all; its reader sets the pace, a phone line's if need be."""
_RETRIES = 3
RETRY_TIMEOUT = timedelta(seconds=20)
"""After this long no further try is begun."""


def bucket_at(url: str) -> tuple[Bucket, str]:
    """The bucket (Azure: container) of `s3://bucket/prefix`, `gs://…` or `az://…`, and the prefix, which may be empty.

    Raises:
        ValueError: the URL is not of that form, or the variables do not fit together; neither is shown.
    """
    parts = urlsplit(url)
    prefix = parts.path.strip("/")
    named = _NAME.fullmatch(parts.netloc) and (not prefix or _PREFIX.fullmatch(prefix))
    if parts.scheme not in _KINDS or not named or parts.query or parts.fragment:
        raise ValueError("object storage is named as s3://bucket/prefix, gs://bucket/prefix or az://container/prefix")
    try:
        bucket = _KINDS[parts.scheme](
            parts.netloc,
            client_options=_client(),
            retry_config=_retries(),
        )
    except BaseError as error:
        # What the library says quotes the configuration, keys and all.
        raise ValueError(f"the variables for {parts.scheme}:// do not fit: {type(error).__name__}") from None
    return bucket, prefix


def _client() -> "ClientConfig":
    options: ClientConfig = {
        "connect_timeout": CONNECT_TIMEOUT,
        "read_timeout": READ_TIMEOUT,
        "timeout": _REQUEST_TIMEOUT,
    }
    if any(os.environ.get(name, "").startswith("http://") for name in _ENDPOINTS):
        options["allow_http"] = True
    return options


def _retries() -> "RetryConfig":
    return {
        "max_retries": _RETRIES,
        "retry_timeout": RETRY_TIMEOUT,
        "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=2), "base": 2},
    }
