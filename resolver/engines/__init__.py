"""The resolver engines: uv by default, pip as the second. Both run as processes, never in ours."""
