"""BytePlus ModelArk and Volcengine Ark: Seedance tasks, and Seedream images."""
