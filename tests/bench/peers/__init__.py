"""Other gateways on the same machine in the same run: what they answer a second, and what they do for it."""
