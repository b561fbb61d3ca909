"""Machines under load are slow; a test's time says nothing about its truth."""

from hypothesis import settings

settings.register_profile("flexcore", deadline=None)
settings.load_profile("flexcore")
