"""A run over many cases: workers, records, resume, memory, Ray."""
