"""ElevenLabs: speech and music, each in the answer to its request."""
