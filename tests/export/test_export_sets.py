"""`cnntrain export` of a network that gives images sets of labels: what its files say of themselves, and answer."""

import json
import runpy
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from cnntrain import cli
from cnntrain.cli.arguments import read_arguments
from cnntrain.commands import export
from cnntrain.config.schema.run_commands import ExportArgs
from cnntrain.export import int8, parity
from cnntrain.export.subject import ExportedFile, Subject
from cnntrain.runtime.reporter import Silence
from cnntrain.training.load_run import load_job
from cnntrain.training.multi_label import mean_average_precision


def predicted():
    """File -> [(label, probability), ...] as `predict` gives them."""
    assert cli.main(["predict", "run", "images=new", "out=predicted.json", "trainer.precision=fp32"]) == 0
    rows = json.loads(Path("predicted.json").read_text())["predictions"]
    found = {}
    for row in rows:
        values = {one["class"]: one["probability"] for one in row["classes"]}
        found[row["file"]] = [(name, values[name]) for name in row["labels"]]
    return found


def classified(program, files):
    classify = runpy.run_path(program)["classify"]
    return {file: classify(file) for file in files}


FORMATS = [
    pytest.param("format=onnx", "model.onnx", marks=pytest.mark.slow),
    ("preprocessing=true", "model.onnx"),
    ("format=safetensors", "model.safetensors"),
    pytest.param("format=torchscript", "model.pt", marks=pytest.mark.slow),
    pytest.param("format=torch_export", "model.pt2", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("word", "file"), FORMATS)
def test_the_program_beside_the_file_gives_the_labels_that_predict_gives(among_sets, word, file, capsys):
    assert cli.main(["export", "run", word, f"out={file}"]) == 0
    assert "same labels" in capsys.readouterr().out
    wanted = predicted()
    assert {len(labels) for labels in wanted.values()} > {1}
    found = classified("model.py", wanted)
    for name, labels in wanted.items():
        assert [label for label, _ in found[name]] == [label for label, _ in labels]
        assert [value for _, value in found[name]] == pytest.approx([value for _, value in labels], abs=1e-5)


@pytest.mark.slow
def test_the_file_says_that_it_gives_sets_and_from_which_probabilities_on(among_sets, capfd, monkeypatch):
    assert cli.main(["export", "run", "out=model.onnx"]) == 0
    *_, job = load_job(Path("run"), [], Silence())
    facts = onnxruntime.InferenceSession("model.onnx").get_modelmeta().custom_metadata_map
    assert json.loads(facts["multi_label"]) is True
    assert json.loads(facts["classes"]) == ["blue", "green", "red"]
    assert np.float32(json.loads(facts["thresholds"])).tolist() == np.float32(job.thresholds).tolist()
    Path("model.py").write_text(Path("model.py").read_text().replace("thresholds = np", "thresholds = 2 + np"))
    monkeypatch.setattr("sys.argv", ["model.py", "new/56.png"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path("model.py", run_name="__main__")
    assert not end.value.code
    assert capfd.readouterr().out.splitlines()[-2:] == ["new/56.png", "  no label"]


@pytest.mark.slow
def test_whole_numbers_are_judged_by_the_mean_average_precision(among_sets, capsys):
    args = read_arguments(ExportArgs, ["run", "int8=true", "preprocessing=true"])
    results = export.run(args)
    assert set(results) > {"map_before", "map", "probability_shift"}
    assert "top1" not in results
    assert "mAP" in capsys.readouterr().out
    *_, job = load_job(Path("run"), [], Silence())
    subject, loader = Subject(job), job.data.scored_splits["val"]
    with torch.no_grad():
        rough = int8.cost(job.model, lambda inputs: job.model(inputs) + 1, subject, loader, lambda _: None)
        logits = torch.cat([job.model(job.normalize(batch.images)) for batch in loader.batches()])
    before, after = (subject.probabilities(logits + more) for more in (0, 1))
    assert results["map_before"] == pytest.approx(mean_average_precision(before, loader.labels))
    given = before >= torch.tensor(job.thresholds)
    assert rough.before == rough.after
    assert rough.shift == pytest.approx(float((after - before)[given].mean()))


def test_parity_tells_of_how_many_images_the_whole_set_is_the_same(among_sets):
    *_, job = load_job(Path("run"), [], Silence())
    images, subject = job.data.test.pick(torch.arange(14)).cpu(), Subject(job)
    with torch.no_grad():
        logits = subject.answer(images)
    limit = torch.tensor(job.thresholds).logit()

    def ask(inputs):
        answer = job.model(inputs).detach()
        answer[:, 0] = limit[0] + 1  # the first label is always given
        return answer

    found = parity.compare(ExportedFile(b"", ask, "nothing"), subject, images)
    assert found.same_class == int((logits[:, 0] >= limit[0]).sum())
