"""fal: pictures and films through its queue."""
