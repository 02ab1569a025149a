"""fal.ai: a queue per endpoint, storage, webhooks signed with Ed25519, and the platform's books."""
