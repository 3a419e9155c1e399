"""What a training step launches beside its network."""

import pytest
import torch
from launches import launches
from test_loop import make_job, make_run
from torch import nn
from torch.nn import functional

from cnntrain.finetune.batch_norms import counted_together
from cnntrain.training import loop, losses
from cnntrain.training.losses import Loss
from cnntrain.training.metrics import RunningScores


def norms() -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm1d(3, momentum=None), nn.BatchNorm1d(3), nn.BatchNorm1d(3))


def test_batch_norms_count_their_batches_in_one_launch_as_torch_counts_them():
    inputs, ours, theirs = torch.randn(5, 3), norms(), norms()
    for model in (ours, theirs):
        model[2].eval()
    for _ in range(3):
        with counted_together(ours.modules()):
            ours(inputs)
        theirs(inputs)
    assert [norm.num_batches_tracked.item() for norm in ours] == [3, 3, 0, 3]
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value)

    def forward() -> None:
        with counted_together(ours.modules()):
            ours(inputs)

    counts = launches(forward)
    assert counts["_foreach_add_"] == 1
    assert counts["add_"] == 1  # of the norm that needs its count


def test_norms_that_need_their_count_keep_it():
    synchronised, cumulative = nn.SyncBatchNorm(3), nn.BatchNorm1d(3, momentum=None)
    with counted_together([synchronised, cumulative]):
        assert synchronised.num_batches_tracked is not None
        assert cumulative.num_batches_tracked is not None


def test_a_forward_pass_that_fails_counts_no_batch():
    model = norms()
    with pytest.raises(RuntimeError), counted_together(model.modules()):
        model(torch.randn(5, 4))
    assert [norm.num_batches_tracked.item() for norm in model] == [0] * 4


def test_scores_take_five_launches_and_labels_that_are_smoothed_twelve(monkeypatch):
    monkeypatch.setattr(losses, "launching_costs", lambda device: True)
    logits, labels = torch.randn(8, 10, requires_grad=True), torch.arange(8)
    window, loss = RunningScores(torch.device("cpu")), Loss(label_smoothing=0.1)
    one = torch.ones(())
    assert launches(lambda: window.add(one, logits.detach(), labels)).total() == 5
    assert launches(lambda: loss(logits, labels).backward()).total() <= 12


@pytest.mark.parametrize("smoothing", [0.1, 0.5, 1.0])
def test_smoothed_labels_as_probabilities_give_torchs_loss_and_gradient(smoothing, monkeypatch):
    monkeypatch.setattr(losses, "launching_costs", lambda device: True)
    logits, labels = 5 * torch.randn(64, 10), torch.randint(10, (64,))
    found, wanted = (logits.clone().requires_grad_() for _ in range(2))
    ours = Loss(label_smoothing=smoothing)(found, labels)
    theirs = functional.cross_entropy(wanted, labels, label_smoothing=smoothing, reduction="sum")
    assert torch.allclose(ours, theirs, rtol=1e-6)
    ours.backward()
    theirs.backward()
    assert torch.allclose(found.grad, wanted.grad, atol=1e-6)


def test_a_step_launches_little_beside_its_network(monkeypatch):
    """A convolution, a batch norm, ReLU, dropout and a linear layer, with EMA: forward, backward and update."""
    monkeypatch.setattr(losses, "launching_costs", lambda device: True)
    run, job = make_run(), make_job(log_every=100)
    batches = [[batch] for batch in job.data.train.batches()]
    loop.train_step(run, job, batches[0], 7)
    counts = launches(lambda: loop.train_step(run, job, batches[1], 7))
    assert counts.total() <= 43, counts
