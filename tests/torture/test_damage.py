"""Every byte of a checkpoint of a run is flipped in turn, and each file cut to every length: every start falls back."""

import pytest

from tests.shell.test_damage import KINDS, falls_back, two_epochs
from tests.torture.conftest import amount

SHARES = 8


@pytest.fixture(scope="module")
def trained():
    with two_epochs() as made:
        yield made


@pytest.mark.parametrize("share", range(SHARES))
@pytest.mark.parametrize("kind", KINDS)
def test_the_start_falls_back_from_damage_of_every_byte(kind, share, trained, request, record_property):
    places = [(file, position) for file in trained.files() for position in range(file.stat().st_size)]
    chosen = places[share :: SHARES * round(len(places) / amount(request.config, len(places)))]
    for file, position in chosen:
        falls_back(trained, file, kind, position)
    record_property("counted", {"starts that fell back": len(chosen)})
