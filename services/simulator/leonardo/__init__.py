"""Leonardo's production API, v1 and v2."""
