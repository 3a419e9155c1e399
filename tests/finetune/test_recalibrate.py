"""Statistics of batch norms measured anew are those of all values together, computed directly."""

import pytest
import torch
from torch import nn
from tuned import NormAct, images, make_net, make_tuning

from cnntrain.config.schema.finetune import Mode
from cnntrain.finetune.batch_norms import keeps_statistics, recalibrate


def all_norms(net):
    return [path for path, module in net.named_modules() if keeps_statistics(module)]


def batches(*counts):
    return [images(seed, count) * (1 + seed) + seed for seed, count in enumerate(counts)]


def copied(net):
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


@pytest.mark.parametrize("counts", [(8,), (8, 8, 8), (8, 8, 3)])
def test_statistics_are_those_of_all_values_together_however_they_are_cut(counts):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), NormAct(4))
    given = batches(*counts)
    assert recalibrate(net, ["1"], given, net) == sum(counts)
    values = net[0](torch.cat(given)).detach().double().transpose(0, 1).flatten(1)
    torch.testing.assert_close(net[1].running_mean.double(), values.mean(1), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(net[1].running_var.double(), values.var(1), rtol=1e-5, atol=1e-6)


def test_a_norm_behind_another_sees_values_normalized_by_the_batch_as_in_training():
    net = make_net()
    given = batches(8, 8)
    recalibrate(net, all_norms(net), given, net)
    net.eval()
    net.bn1.train()
    net.blocks[0].bn.training = True
    seen = []
    net.blocks[0].conv.register_forward_hook(lambda module, inputs, output: seen.append(output.detach()))
    kept = net.blocks[0].bn.running_mean.clone(), net.blocks[0].bn.running_var.clone()
    for batch in given:
        net(batch)
    values = torch.cat(seen).double().transpose(0, 1).flatten(1)
    torch.testing.assert_close(kept[0].double(), values.mean(1), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(kept[1].double(), values.var(1), rtol=1e-4, atol=1e-6)


def test_torchs_cumulative_average_lacks_the_variance_between_batches():
    """Why `momentum=None` is not enough where batches differ."""
    given = batches(8, 8, 8)
    norm = nn.BatchNorm2d(3, momentum=None)
    for batch in given:
        norm(batch)
    values = torch.cat(given).transpose(0, 1).flatten(1)
    assert (norm.running_var < 0.9 * values.var(1)).all()
    recalibrate(norm, [""], given, norm)
    torch.testing.assert_close(norm.running_var, values.var(1))


def test_it_repeats_bit_by_bit_and_leaves_modes_weights_and_other_norms_alone():
    net = make_net()
    tuning = make_tuning(net, mode=Mode.B, freeze=["conv1|bn1"])
    tuning.enter(0)
    before, modes = copied(net), [module.training for module in net.modules()]
    results = []
    for _ in range(2):
        recalibrate(net, tuning.norms(), batches(8, 5), net)
        results.append(copied(net))
    changed = {name for name, tensor in results[0].items() if not torch.equal(tensor, before[name])}
    assert changed == {f"blocks.{block}.bn.running_{kind}" for block in range(2) for kind in ("mean", "var")}
    assert all(torch.equal(results[0][name], results[1][name]) for name in before)
    assert [module.training for module in net.modules()] == modes
    assert net.blocks[0].bn.momentum == 0.1
    tuning.check()


def test_an_error_on_the_way_leaves_the_statistics_alone():
    net = make_net()
    before = copied(net)

    def failing():
        yield images(0)
        raise RuntimeError("a signal")

    with pytest.raises(RuntimeError, match="a signal"):
        recalibrate(net, all_norms(net), failing(), net)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert net.bn1.momentum == 0.1
    assert net.bn1.training
    assert not net.bn1._forward_hooks


def test_a_batch_of_one_image_is_left_out_and_nothing_measured_changes_nothing():
    net = make_net()
    before = copied(net)
    assert recalibrate(net, all_norms(net), batches(1), net) == 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert recalibrate(net, all_norms(net), batches(8, 1), net) == 8
    one = net.bn1.running_var.clone()
    recalibrate(net, all_norms(net), batches(8), net)
    assert torch.equal(net.bn1.running_var, one)
