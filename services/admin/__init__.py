"""The operator's command line: `python -m services.admin`. A gRPC client like any internal service."""
