"""Gradients of several processes come together with the same bits at every try, whatever learns when."""

import pytest
import torch
from processes import crossed_run, free_port, make_job, one_of_four

from cnntrain.config.schema.trainer import GradExchange
from cnntrain.runtime.distributed import ALONE
from cnntrain.training import loop


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What each of four processes has found, by rank."""
    folder = tmp_path_factory.mktemp("four")
    torch.multiprocessing.spawn(one_of_four, (free_port(), str(folder)), nprocs=4)
    return [torch.load(folder / f"{rank}.pt") for rank in range(4)]


@pytest.mark.slow
@pytest.mark.parametrize("form", [form.value for form in GradExchange])
def test_four_processes_resume_at_any_step_with_the_same_bits(results, form):
    """Of three or more, the order of a sum depends on its bucket: torch must keep the buckets that it began with."""
    prints = {result[form]["print"] for result in results}
    assert len(prints) == 1
    for result in results:
        assert len(result[form]["resumed"]) > 1
        assert set(result[form]["resumed"]) == prints


@pytest.mark.slow
@pytest.mark.parametrize(("form", "near"), [("fp32", 1e-6), ("bf16", 3e-3)])
def test_four_processes_take_the_steps_of_one_though_layers_open_and_one_is_idle(results, form, near):
    run = crossed_run(ALONE)
    loop.train(run, make_job(ALONE, 8, random=False, images=40))
    for name, weights in run.model.state_dict().items():
        torch.testing.assert_close(results[0][form]["weights"][name], weights, rtol=0, atol=near)
    fp32, bf16 = (results[0][form.value]["print"] for form in GradExchange)
    assert fp32 != bf16
