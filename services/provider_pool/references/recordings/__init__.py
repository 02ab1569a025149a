"""Films and sounds that an output is to follow: walked, copied into a container of our own, and walked again."""
