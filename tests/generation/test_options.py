"""Options: what is allowed, and what a person reads when it is not."""

import math

import pytest

from sightline.core.errors import ConfigError
from sightline.generation import GenerationOptions, read_options


def test_defaults_are_greedy():
    options = GenerationOptions(20)
    assert not options.sampled
    assert options.beams == 1 and options.stop == ()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_new_tokens": -1}, "max_new_tokens is -1: it must be a whole number, 0 or more"),
        ({"max_new_tokens": 2.0}, "max_new_tokens is 2.0: it must be a whole number"),
        ({"max_new_tokens": True}, "max_new_tokens is True"),
        ({"temperature": -0.5}, r"temperature is -0.5: it must be 0 \(greedy\) or at least 0.001"),
        ({"temperature": 1e-9}, "temperature is 1e-09"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"temperature": "hot"}, "temperature is 'hot'"),
        ({"top_k": 0, "temperature": 1}, "top_k is 0: it must be a whole number of tokens, 1"),
        ({"top_p": 0, "temperature": 1}, "top_p is 0: it must be above 0 and at most 1"),
        ({"top_p": 1.1, "temperature": 1}, "top_p is 1.1"),
        ({"top_k": 5}, "top_k is 5 but temperature is 0, which always takes the likeliest"),
        ({"top_p": 0.9}, "top_p is 0.9 but temperature is 0"),
        ({"beams": 0}, "beams is 0: it must be a whole number from 1 to 1024"),
        ({"beams": 4, "temperature": 1}, "beams is 4 and temperature 1: .* draws nothing"),
        ({"length_penalty": math.inf}, "length_penalty is inf: it must be a finite number"),
        ({"early_stopping": "never"}, "early_stopping is 'never': it must be true or false"),
        ({"repetition_penalty": 0}, "repetition_penalty is 0: it must be above 0"),
        ({"no_repeat_ngram": -2}, "no_repeat_ngram is -2: it must be a whole number of tokens"),
        ({"seed": -1}, "seed is -1: it must be a whole number from 0"),
        ({"stop": ("",)}, r"stop is \('',\): it must be a tuple of texts, none of them empty"),
        ({"stop": [1]}, r"stop is \(1,\)"),
        ({"temperatures": 1}, "unknown option 'temperatures': did you mean 'temperature'"),
        ({"num_beams": 2}, "unknown option 'num_beams': did you mean 'beams'"),
        ({"schema": {}}, "schema: answers that follow a schema cannot be written yet"),
    ],
)
def test_what_does_not_fit_is_told(given, message):
    with pytest.raises(ConfigError, match=message):
        read_options(given, max_new_tokens=5)


def test_what_a_person_gives_goes_before_the_defaults():
    options = read_options({"temperature": 1, "stop": "\n"}, max_new_tokens=7, temperature=0.0)
    assert options == GenerationOptions(7, temperature=1, stop=("\n",))
    assert read_options({"stop": ["a", "b"]}, max_new_tokens=7).stop == ("a", "b")


def test_a_top_p_of_1_is_no_rule():
    assert not GenerationOptions(5, top_p=1.0).sampled
