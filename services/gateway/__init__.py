"""The edge: translates the public JSON contracts into calls of the other services, and nothing more."""
