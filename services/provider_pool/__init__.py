"""The provider pool: accounts at providers, which of them serves a job, and the attempts made on them."""
