"""Patterns of names: wildcards, alternatives, whole modules, and the faults of those that match nothing."""

import pytest

from cnntrain.errors import ConfigError
from cnntrain.models.name_patterns import is_below, matching, require

NAMES = ["conv1.weight", "bn1.weight", "bn1.bias", "layer1.0.conv1.weight", "layer10.0.weight", "fc.weight", "fc.bias"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("fc.bias", ["fc.bias"]),
        ("*.bias", ["bn1.bias", "fc.bias"]),
        ("conv1", ["conv1.weight"]),
        ("layer1", ["layer1.0.conv1.weight"]),
        ("layer*", ["layer1.0.conv1.weight", "layer10.0.weight"]),
        ("fc|conv1 | bn1.weight", ["conv1.weight", "bn1.weight", "fc.weight", "fc.bias"]),
        ("*", NAMES),
        ("FC", []),
        ("", []),
    ],
)
def test_a_pattern_matches_names_and_whole_modules(pattern, expected):
    assert matching(pattern, NAMES) == expected


def test_what_is_required_is_all_that_any_pattern_matches():
    assert require("finetune.freeze", ["bn1", "*.bias"], NAMES, "parameter") == {"bn1.weight", "bn1.bias", "fc.bias"}
    assert require("finetune.freeze", [], NAMES, "parameter") == set()


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("layre1", "k: 'layre1' matches no parameter; did you mean layer1?"),
        ("layer1.conv1", "k: 'layer1.conv1' matches no parameter; did you mean layer1.0.conv1?"),
        ("conv1|bm1", "k: 'bm1' of 'conv1|bm1' matches no parameter; did you mean bn1?"),
        ("conv1|", "k: '' of 'conv1|' matches no parameter; there are conv1, bn1, layer1, layer10, fc"),
        ("xyz*", "k: 'xyz*' matches no parameter; there are conv1, bn1, layer1, layer10, fc"),
    ],
)
def test_a_pattern_or_an_alternative_that_matches_nothing_is_a_fault(pattern, says):
    with pytest.raises(ConfigError) as caught:
        require("k", ["fc", pattern], NAMES, "parameter")
    assert str(caught.value) == says


def test_a_name_is_below_itself_and_each_module_around_it():
    assert [is_below("layer1.0.conv1", [module]) for module in ("layer1.0.conv1", "layer1.0", "layer1", "")] == [
        True
    ] * 4
    assert not is_below("layer10.conv1", ["layer1", "conv1"])
