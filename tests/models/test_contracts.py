"""Every system in the table keeps every promise."""

import pytest

from sightline.models.contracts import CONTRACTS
from sightline.models.table import SYSTEMS, system


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("check", CONTRACTS, ids=lambda check: check.__name__)
def test_contract(name, check):
    check(system(name))
