"""The life of an attempt: recorded, sent, looked for, asked about, collected, ended."""
