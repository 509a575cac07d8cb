"""`python -m refcut_backend` is the `refcut` command."""

from refcut_backend.cli.main import app

app(prog_name="refcut")
