"""`--data a=3,b=1`: each source gives its own parts, and training draws by weight."""

from collections import Counter
from dataclasses import replace

import pytest

from sightline.core.errors import ConfigError, DataError
from sightline.data.mixtures import Mixture, having
from sightline.recipes.dual_encoder import DualEncoderRecipe
from sightline.recipes.splits import splits
from tests.data.shards.shard_files import captioned, write_tar


@pytest.fixture
def two(tmp_path):
    write_tar(tmp_path / "a.tar", captioned(0, 40))
    write_tar(tmp_path / "b/0.tar", captioned(100, 20))
    return f"{tmp_path / 'a.tar'}=3,{tmp_path / 'b'}=1"


def test_a_mixture_is_trained_on_by_weight_and_held_out_from_each_source(two):
    parts = splits(DualEncoderRecipe(data=two))
    assert isinstance(parts.training, Mixture)
    drawn = [parts.training[int(i)].id for i in parts.training.epoch_order(0, 0)]
    counts = Counter(int(id) >= 100 for id in drawn)
    assert counts[False] / len(drawn) == pytest.approx(0.75, abs=1 / len(drawn))
    held_out = {record.id for record in (*parts.validation, *parts.test)}
    assert {int(id) >= 100 for id in held_out} == {True, False}
    assert not held_out & {record.id for record in parts.training}
    kept = having(parts.training, lambda record: bool(record.captions))
    assert isinstance(kept, Mixture)
    assert kept.weights == parts.training.weights


def test_drawn_parks_can_be_a_source(two):
    parts = splits(replace(DualEncoderRecipe(), data="park=1," + two.split(",")[0], eval_limit=5))
    names = {parts.training.source_of(int(i))[0] for i in parts.training.epoch_order(0, 0)[:50]}
    assert "park" in names


def test_mistakes_in_the_spelling_are_named(two):
    with pytest.raises(ConfigError, match="has no weight; a mixture is written PATH=WEIGHT"):
        splits(DualEncoderRecipe(data=two + ",more"))
    with pytest.raises(DataError, match="there is no such file"):
        splits(DualEncoderRecipe(data="gone=1,also=2"))
