"""A batch in parts, and steps for which memory does not suffice."""

import copy
import weakref
from contextlib import closing
from typing import cast

import pytest
import torch
from test_loop import Digits, Silent, make_job, make_run, mix_of, same
from torch import nn

from cnntrain import cli
from cnntrain.config.schema.trainer import Precision
from cnntrain.data.loaders import Loader
from cnntrain.storage import checkpoint
from cnntrain.training import load_run, loop, micro_batches
from cnntrain.training.job import Job
from cnntrain.training.micro_batches import BatchTooLarge, cut
from cnntrain.training.scoring import Scorer
from cnntrain.training.state import Progress
from cnntrain.training.steps import Steps


class OutOfMemoryError(RuntimeError):
    """Named like torch's."""


class Room(nn.Module):
    """A network that finds memory for so many images at once, and counts what passes."""

    def __init__(self, network, most, late=False):
        super().__init__()
        self.network, self.most, self.late, self.sizes, self.calls = network, most, late, [], 0

    def forward(self, images):
        self.sizes.append(len(images))
        result = self.network(images)  # the statistics of batch norms and random numbers have moved by now
        if self.training and len(images) > self.most:
            if self.late:
                result.register_hook(self.fail)
            else:
                self.fail()
        return result

    def fail(self, gradient=None):
        raise OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


class Lines(Silent):
    def __init__(self):
        super().__init__()
        self.lines = []
        self.warn = self.lines.append


def with_room(run, most, late=False):
    room = Room(run.model, most, late)
    run.forward = run.short_forward = room
    return room


def train(most, saved=None, late=False, run=None, **settings):
    """A run of 2 epochs of 30 digits in batches of 7, where memory takes so many images at once."""
    run = run or make_run()
    room = with_room(run, most, late)
    job = make_job(saved, **settings)
    object.__setattr__(job, "report", Lines())
    loop.train(run, job)
    return run, room, job.report


def without_norms():
    run = make_run()
    run.model.eval()
    run.start_epoch = list  # neither batch norms nor dropout
    return run


def test_the_gradient_of_a_batch_in_parts_is_that_of_the_whole():
    whole, room, _ = train(99, run=without_norms(), mix=mix_of())
    assert set(room.sizes) == {7, 2}
    for size in (2, 3, 5):
        parts, room, _ = train(99, run=without_norms(), mix=mix_of(), micro_batch=size)
        assert max(room.sizes) <= size + (size == 2)  # none of a single image
        assert min(room.sizes) >= 2
        for ours, reference in zip(parts.model.parameters(), whole.model.parameters(), strict=True):
            torch.testing.assert_close(ours, reference)
        assert parts.progress.step == whole.progress.step


def test_the_images_of_a_batch_and_their_order_stay():
    seen = []

    def watch(run):
        forward = run.forward
        run.forward = run.short_forward = lambda images: seen[-1].append(images.clone()) or forward(images)

    for size in (None, 3):
        seen.append([])
        run = make_run()
        watch(run)
        loop.train(run, make_job(micro_batch=size, mix=mix_of()))
    assert len(seen[1]) > len(seen[0])
    assert torch.equal(torch.cat(seen[0]), torch.cat(seen[1]))


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 64])
@pytest.mark.parametrize("most", [2, 3, 5, 100, None])
def test_parts_are_even_and_hold_each_image_with_all_its_versions(count, most):
    images = torch.arange(3 * count).view(3 * count, 1, 1, 1).float().expand(-1, 2, 4, 4)
    images = images.contiguous(memory_format=torch.channels_last)
    parts = list(cut(images, torch.arange(count), most))
    sizes = [len(targets) for _, targets in parts]
    assert torch.cat([targets for _, targets in parts]).tolist() == [*range(count)]
    assert max(sizes) - min(sizes) <= 1
    assert most is None or max(sizes) <= most + (most == 2)
    assert min(sizes) >= min(2, count)
    for inputs, targets in parts:
        assert inputs[:, 0, 0, 0].tolist() == [v * count + t for v in range(3) for t in targets.tolist()]
        assert inputs.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("late", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("accumulate", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_step_that_found_no_memory_leaves_nothing_behind(late, accumulate):
    """Halved from the first step on, it ends with the bits of a run that was cut in the same way from its start."""
    settings = {"mix": mix_of(), "accumulate": accumulate}
    run, room, report = train(3, late=late, micro_batch="auto", **settings)
    assert room.sizes[0] == 7
    assert run.progress.micro_batch == 3
    reference, _, _ = train(99, micro_batch=3, **settings)
    reference.progress.micro_batch = 3
    assert same(run.state(), reference.state())
    assert report.lines == [
        "step 1: 7 images at once need more memory than there is; its batches are cut into micro-batches of 3 from here"
    ]


@pytest.mark.parametrize("late", [False, True], ids=["forward", "backward"])
def test_what_a_failed_attempt_has_computed_is_let_go_before_the_next(monkeypatch, late):
    alive, made = [], []
    run = make_run()
    with_room(run, 3, late).network.register_forward_hook(lambda *given: made.append(weakref.ref(given[-1])))
    monkeypatch.setattr(micro_batches, "release_memory", lambda device: alive.append([made[-1]() is not None]))
    loop.train(run, make_job(micro_batch="auto"))
    assert alive == [[False]]


def test_memory_that_runs_out_in_the_middle_is_mended_at_the_same_step():
    """From step 6 on others hold memory: what came before stays, and what follows is that of smaller micro-batches."""
    saved = []
    run = make_run()
    room = with_room(run, 99)
    job = make_job(saved, micro_batch="auto", accumulate=2)
    object.__setattr__(job, "report", Lines())
    count = 0
    add = loop.add_gradients

    def shrinks(*args, **places):
        nonlocal count
        count += 1
        room.most = 99 if count < 8 else 4  # in the second batch of a step
        add(*args, **places)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "add_gradients", shrinks)
        loop.train(run, job)
    assert run.progress.step == 6
    # The state is saved with the new size before the step is taken again: a run that goes on from it has the same bits.
    (moment,) = [i for i, state in enumerate(saved) if state["progress"]["micro_batch"]][:1]
    assert saved[moment]["progress"]["step"] == saved[moment - 1]["progress"]["step"]
    assert same(saved[moment]["model"], saved[moment - 1]["model"])
    for state in (saved[moment], saved[moment + 1]):
        resumed = make_run(seed=99)
        resumed.restore(copy.deepcopy(state))
        loop.train(resumed, make_job(micro_batch="auto", accumulate=2))
        assert same(resumed.state(), run.state())


def test_without_auto_the_run_ends_with_the_size_that_fits():
    saved = []
    with pytest.raises(
        BatchTooLarge, match=r"^data.batch_size: 7 images at once need more memory than there is \(.*\), "
    ) as told:
        train(3, saved)
    assert "3 fit; trainer.micro_batch=3 keeps the batch and cuts it, trainer.micro_batch=auto finds" in str(told.value)
    assert not saved
    with pytest.raises(BatchTooLarge, match=r"^trainer.micro_batch: 6 images at once need .* 3 fit"):
        train(3, saved, micro_batch=6)


@pytest.mark.slow
def test_a_network_that_is_too_large_for_two_images_is_told():
    for size in (None, "auto", 2):
        with pytest.raises(BatchTooLarge, match=r"^data.image_size: even 2 images at once need more memory"):
            train(1, micro_batch=size)


@pytest.mark.slow
def test_a_resume_keeps_the_size_that_was_found_unless_another_is_typed(here, monkeypatch, capsys):
    def lacks(inputs, targets, most):
        for part in parts(inputs, targets, most):
            if len(part[0]) > 9:
                raise OutOfMemoryError("CUDA out of memory")
            yield part

    def asks(self, *given, **words):
        asked.append(words.get("most"))
        return scorer(self, *given, **words)

    parts, scorer, asked = cut, Job.scorer, []
    monkeypatch.setattr(Job, "scorer", asks)
    words = ["data.limit=64", "trainer.epochs=1", "trainer.tensorboard=false", "augment=none", "data.batch_size=32"]
    monkeypatch.setattr(loop, "cut", lacks)
    assert cli.main([*words, "hydra.run.dir=told"]) == 7
    assert "data.batch_size: 32 images at once need more memory" in capsys.readouterr().err
    assert cli.main(["check", *words]) == 7
    assert "32 images at once need more memory than there is" in capsys.readouterr().err
    assert cli.main(["check", *words, "trainer.micro_batch=auto"]) == 0
    assert "cut into micro-batches of 8 from here" in " ".join(capsys.readouterr().out.split())
    asked.clear()
    assert cli.main([*words, "hydra.run.dir=run", "trainer.micro_batch=auto"]) == 0
    assert "cut into micro-batches of 8 from here" in " ".join(capsys.readouterr().out.split())
    assert asked == [8, 8]  # of validation and test, by the same parts
    assert load_run.load_job(here / "run", [], Silent())[2].scorer().most == 8  # as eval and predict score
    for words, size in ((["trainer.epochs=2"], 8), (["trainer.epochs=3", "trainer.micro_batch=5"], 0)):
        assert cli.main(["resume", "run", *words]) == 0
        assert "more memory" not in capsys.readouterr().out
        assert checkpoint.load(here / "run/checkpoints/last")["progress"]["micro_batch"] == size


def test_scoring_halves_where_memory_runs_out_and_answers_the_same(monkeypatch):
    class Narrow(nn.Module):
        def forward(self, images):
            asked.append(len(images))
            if len(images) > room:
                raise OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return images.flatten(1).float()

    room, asked, released = 9, [], []
    monkeypatch.setattr("cnntrain.training.scoring.release_memory", released.append)
    images = torch.arange(64 * 4).reshape(64, 1, 2, 2).to(torch.uint8)
    scorer = Scorer(Narrow(), lambda part: part, torch.device("cpu"), Precision.fp32)
    assert scorer.logits(images).equal(images.flatten(1).float())
    assert asked == [64, 32, 16, *[8] * 8]
    assert len(released) == 3
    assert len(scorer.logits(images[:10])) == 10  # the next batches do not try the larger ones again
    assert asked[-2:] == [8, 2]
    room = 0
    with pytest.raises(OutOfMemoryError):
        scorer.logits(images)


def test_no_more_than_one_batch_of_a_step_is_held():
    alive = []

    class Counted(Digits):
        def batches(self, epoch=0, start=0):
            for batch in super().batches(epoch, start):
                alive.append(batch.images.data_ptr())
                yield batch

    progress = Progress()
    with closing(Steps(cast(Loader, Counted()), progress, 3)) as steps:
        for batches, images in steps:
            drawn = 0
            for batch in batches:
                drawn += len(batch.labels)
                progress.batch += 1
                assert len(alive) == progress.batch  # none is drawn before it is asked for
            assert drawn == images
    assert progress.batch == 5


def test_a_step_that_was_given_up_comes_again():
    progress, seen = Progress(batch=1), []
    with closing(Steps(cast(Loader, Digits()), progress, 2)) as steps:
        for turn, (batches, images) in enumerate(steps):
            begin = progress.batch
            for batch in batches:
                seen.append((turn, images, batch.indices.tolist()))
                progress.batch += 1
                if turn == 1:
                    break
            if turn == 1:
                progress.batch = begin
    assert [images for _, images, _ in seen] == [14, 14, 9, 9, 9]
    assert seen[2][2] == seen[3][2]
    assert sorted(i for turn, _, indices in seen if turn != 1 for i in indices) == sorted(
        torch.cat([batch.indices for batch in Digits().batches(0, 1)]).tolist()
    )


def test_words_that_are_no_size_are_told_in_one_line(capsys):
    for word in ("half", "1", "1.5", "true"):
        assert cli.main([f"trainer.micro_batch={word}"]) == 2
        rule = "a whole number >= 2, or auto, or null"
        assert capsys.readouterr().err.startswith(
            f"cnntrain: error: trainer.micro_batch: must be {rule} (given {word})"
        )
    assert cli.main(["trainer.micro_batch=atuo"]) == 2
    assert capsys.readouterr().err.endswith("(given atuo); did you mean auto?\n")
