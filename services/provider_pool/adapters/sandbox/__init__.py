"""The built-in provider that draws pictures and films on this machine."""
