"""A job is accepted if and only if a predicate says so that knows the documentation and nothing of the core."""

from hypothesis import HealthCheck, given, settings

import flexcore
from flexcore import ConfigError
from tests.acceptable import broken
from tests.strategies import jobs


def refused(config, facts):
    try:
        flexcore.plan(config, facts)
    except ConfigError as error:
        return [str(problem) for problem in error.problems]
    return []


@given(jobs())
def test_a_job_is_accepted_if_and_only_if_it_breaks_no_rule(job):
    assert bool(refused(*job)) == bool(broken(*job)), (broken(*job), refused(*job))


def test_jobs_are_accepted_and_refused_often_enough_to_tell():
    """The laws would hold of refusals alone: at least 40% of the jobs are accepted and 10% refused."""
    outcomes = []

    @settings(max_examples=200, database=None, suppress_health_check=list(HealthCheck))
    @given(jobs())
    def look(job):
        outcomes.append(bool(refused(*job)))

    look()
    share = sum(outcomes) / len(outcomes)
    assert 0.1 <= share <= 0.6, share
