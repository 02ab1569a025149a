"""The life of a job, from the customer's request to its settled end."""
