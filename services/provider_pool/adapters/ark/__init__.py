"""BytePlus ModelArk and Volcengine Ark: ByteDance's own doors to Seedance."""
