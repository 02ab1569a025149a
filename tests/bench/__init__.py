"""`make bench`: what a person waits for, and ratios against a baseline measured in the same run."""
