"""What the page says of a temperature."""

from forged import job_of, random_answers

from cnntrain.evaluation.evaluate import evaluate
from cnntrain.page import answers


def test_a_temperature_is_advised_where_half_of_the_validation_images_confirm_it() -> None:
    names = [*"abcdefgh"]
    job = job_of(names, val=random_answers(400, 8), test=random_answers(400, 8, seed=1))
    scores = evaluate(job).scores["test"]
    assert "calibrate=true" in str(answers.certainty(scores, "test", "run"))
    scores["calibration"]["temperature"]["helps"] = False
    assert "calibrate=true" not in str(answers.certainty(scores, "test", "run"))
