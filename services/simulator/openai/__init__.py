"""OpenAI's API: images and chat in one call, and what goes wrong with them."""
