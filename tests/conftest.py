"""Settings of all tests."""

from __future__ import annotations

from hypothesis import settings

# A busy machine must not fail a property: how long an example takes is a matter for benchmarks/.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

pytest_plugins = ["tests.support.backend_fixtures"]
