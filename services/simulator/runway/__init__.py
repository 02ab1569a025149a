"""Runway: tasks paid in credits beforehand, throttled above the slots, with an organization that tells its balance."""
