"""ElevenLabs: speech, music and sound effects, answered with the bytes themselves."""
