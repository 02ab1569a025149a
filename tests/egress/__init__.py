"""The door to customers' addresses against a far side that does whatever it likes."""
