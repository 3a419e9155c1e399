"""Generators depend on all that they are made of, and the global ones come back."""

import torch

from cnntrain.runtime import seeds

CPU = torch.device("cpu")


def test_a_generator_depends_on_all_its_parts_and_nothing_else():
    draws = {parts: torch.rand(2, generator=seeds.generator(CPU, *parts)) for parts in [(0, 1), (1, 0), (0, 0, 1)]}
    torch.manual_seed(7)
    assert torch.equal(draws[0, 1], torch.rand(2, generator=seeds.generator(CPU, 0, 1)))
    assert len({tuple(draw.tolist()) for draw in draws.values()}) == 3


def test_the_random_state_comes_back():
    seeds.seed_everything(1)
    state = seeds.rng_state(CPU)
    first = torch.rand(3)
    torch.rand(10)
    seeds.restore_rng_state(state, CPU)
    assert torch.equal(first, torch.rand(3))
