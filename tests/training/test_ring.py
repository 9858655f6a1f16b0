"""Real processes on the loopback: gathered or around a ring, cached, in blocks, with dropout.

Every case must give the loss and the gradients, scale and bias included, of one process that has
the joined batch.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sightline.training.ring import ring_exchange
from tests.training import pair_processes

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module", params=[2, 3])
def run(request, tmp_path_factory):
    """The number of processes, and what they found."""
    ranks, folder = request.param, tmp_path_factory.mktemp("ring")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    processes = [
        subprocess.Popen(
            [sys.executable, pair_processes.__file__, str(rank), str(ranks), str(folder)],
            stderr=subprocess.PIPE, text=True, env=environment,
        )
        for rank in range(ranks)
    ]  # fmt: skip
    outputs = [process.communicate(timeout=150)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * ranks, outputs[0][-3000:]
    return ranks, torch.load(folder / "found.pt")


@pytest.mark.parametrize("case", pair_processes.cases(), ids=" by ".join)
def test_processes_together_give_the_gradient_of_the_joined_batch(run, case):
    ranks, found = run
    loss, gradients = pair_processes.expected(case[0], ranks)
    ours = found[case]
    assert ours.pop("loss").item() == pytest.approx(loss, abs=1e-9)
    assert ours.keys() == gradients.keys()
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, gradients[name], rtol=0, atol=1e-9)
    assert gradients["scale"].abs() > 1e-6, "the case must be able to fail"


def test_other_dropout_would_be_noticed():
    """The negative control: the same step under the masks of other seeds is another gradient."""
    two, three = (pair_processes.expected("softmax", ranks)[1] for ranks in (2, 3))
    assert max((two[name] - three[name]).abs().max() for name in two) > 1e-3


def test_alone_the_ring_is_a_ring_of_one():
    ring = ring_exchange()
    assert (ring.rank, ring.size) == (0, 1)
    assert ring.pass_on((torch.ones(2),))[0].tolist() == [1.0, 1.0]
