"""Masks on tasks that nobody has clicked on: one task, a batch of them, a whole project."""
