"""Every system in the table keeps every promise."""

from dataclasses import replace

import pytest

from sightline.core.interfaces import System
from sightline.models.contracts import CONTRACTS
from sightline.models.paligemma import TINY2
from sightline.models.table import SYSTEMS, system

OTHERS = {"paligemma2": lambda: replace(system("paligemma"), tiny=TINY2)}
"""Further tiny variants, of systems whose parts differ."""


def named(name: str) -> System:
    return OTHERS[name]() if name in OTHERS else system(name)


@pytest.mark.parametrize("name", [*SYSTEMS, *OTHERS])
@pytest.mark.parametrize("check", CONTRACTS, ids=lambda check: check.__name__)
def test_contract(name, check):
    check(named(name))
