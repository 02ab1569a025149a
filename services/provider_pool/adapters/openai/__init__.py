"""OpenAI, and providers that speak as it does: pictures, charts and texts, each in the answer to its request."""
