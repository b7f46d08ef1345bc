"""The command line, against a real HTTP server that answers with the API's own schemas."""
