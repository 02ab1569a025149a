"""One module for each provider, all behind the interface in `interface.py`."""
