"""Machines under load are slow; a test's time says nothing about its truth."""

from hypothesis import Phase, settings

settings.register_profile("flexcore", deadline=None)
# A mutant is killed by the first example that differs: the same examples each time, none made smaller.
settings.register_profile(
    "mutation",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=25,
    phases=(Phase.explicit, Phase.generate),
)
settings.load_profile("flexcore")
