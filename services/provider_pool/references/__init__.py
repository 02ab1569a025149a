"""Reference media: fetched, walked, decoded in a jail, rewritten, kept until their job has ended."""
