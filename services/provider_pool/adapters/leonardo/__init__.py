"""Leonardo.Ai's Production API: its own picture models by v1, everything else by v2, and both asked about by v1."""
