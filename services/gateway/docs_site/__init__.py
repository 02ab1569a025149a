"""The public documentation: a landing page, one page a contract, and its OpenAPI document."""
