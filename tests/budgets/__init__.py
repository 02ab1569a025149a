"""What one request may cost in statements, commits, calls and bytes: numbers that do not depend on the machine's mood."""
