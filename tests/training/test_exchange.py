"""Gradients of several processes come together with the same bits at every try, whatever learns when."""

import pytest
import timm
import torch
from processes import crossed_run, free_port, make_job, one_of_four

from cnntrain.config.compose import compose_settings
from cnntrain.config.schema.trainer import GradExchange
from cnntrain.errors import ConfigError, ResourceError
from cnntrain.finetune.batch_norms import counted_together
from cnntrain.runtime.world import ALONE, World
from cnntrain.training import exchange, loop
from cnntrain.training.exchange import note_idle, synchronize_norms


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


def test_a_process_that_is_lost_while_the_network_is_wrapped_is_told_as_lost(monkeypatch):
    def lose(*_, **__):
        raise RuntimeError("[gloo/transport/tcp/pair.cc:525] Connection closed by peer [127.0.0.1]:1234")

    monkeypatch.setattr(exchange, "DistributedDataParallel", lose)
    with pytest.raises(ResourceError, match="another process of this run has ended"):
        exchange.Exchange(World(0, 2), GradExchange.fp32).wrap(torch.nn.Linear(2, 2))


def test_batch_norms_over_several_processes_are_torchs_and_keep_their_names_and_what_follows_them():
    model = timm.create_model("tf_efficientnet_lite0", num_classes=3).eval()
    expected, images = dict(model.state_dict()), torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        answer = model(images)
        synchronized = synchronize_norms(model, torch.device("cuda"), World(0, 2))
        assert torch.equal(synchronized(images), answer)
    assert list(synchronized.state_dict()) == list(expected)
    norms = [module for module in synchronized.modules() if isinstance(module, torch.nn.SyncBatchNorm)]
    assert len(norms) == sum(name.endswith("running_mean") for name in expected)
    with counted_together(norm.train() for norm in norms):
        assert all(norm.num_batches_tracked is not None for norm in norms)


def test_batch_norms_over_several_processes_want_a_gpu_and_more_than_one():
    model = torch.nn.Sequential(torch.nn.BatchNorm2d(3))
    assert synchronize_norms(model, torch.device("cpu"), ALONE) is model
    with pytest.raises(ConfigError, match=r"^model.sync_bn: torch has no batch norm over several processes on cpu"):
        synchronize_norms(model, torch.device("cpu"), World(0, 2))
    words = ["model.sync_bn=true", "trainer.grad_exchange=bf16"]
    assert note_idle(compose_settings(words), model, ALONE) == [
        "model.sync_bn=true has no effect, as one process trains alone",
        "trainer.grad_exchange=bf16 has no effect, as one process trains alone",
    ]
    assert note_idle(compose_settings(words), model, World(0, 2)) == []
    assert note_idle(compose_settings([]), model, ALONE) == []


def test_batch_norms_over_several_processes_want_batch_norms():
    settings, model = compose_settings(["model.sync_bn=true"]), torch.nn.Sequential(torch.nn.GroupNorm(1, 3))
    for world in (ALONE, World(0, 2)):
        assert note_idle(settings, model, world) == [
            "model.sync_bn=true has no effect, as the network has no batch norms"
        ]
