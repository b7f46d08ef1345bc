"""Where bytes and facts are kept: blobs by digest, references by key. Knows nothing of resolving."""
