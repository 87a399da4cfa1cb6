"""Damaged and lying inputs, seeded: each is read rightly, or refused in one sentence that names its file."""
