"""Machines under load are slow; a test's time says nothing about its truth. `make nightly` looks at 2,000 examples a law."""

import os

from hypothesis import HealthCheck, Phase, settings

# Jobs are large, and laws of plans pass over those that are refused.
PATIENT = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
settings.register_profile("flexcore", deadline=None, max_examples=100, suppress_health_check=PATIENT)
settings.register_profile("glance", settings.get_profile("flexcore"), max_examples=15)
settings.register_profile("nightly", settings.get_profile("flexcore"), max_examples=2000)
# A mutant is killed by the first example that differs: the same examples each time, none made smaller.
settings.register_profile(
    "mutation",
    settings.get_profile("flexcore"),
    derandomize=True,
    database=None,
    max_examples=25,
    phases=(Phase.explicit, Phase.generate),
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "flexcore"))
