"""The server of `play`: what it answers, and to whom."""

import contextlib
import io
import shutil
import socket
import threading
import time
from dataclasses import replace
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image
from werkzeug.test import Client

import cnntrain
from cnntrain import cli
from cnntrain.play.network import Network
from cnntrain.play.progress import progress
from cnntrain.play.site import MOST_PICTURES, Site, serve
from cnntrain.runtime.reporter import Silence
from cnntrain.storage.run_folder import lock


class Visitor:
    """A browser that knows the token."""

    def __init__(self, network, run):
        self.site = Site(network, lambda: progress(run, network.epochs, True))
        self.client = Client(self.site)

    def get(self, name, *, method="GET", token=None, host="127.0.0.1:8000", **options):
        headers = {"Host": host} | options.pop("headers", {})
        token = self.site.token if token is None else token
        return self.client.open(
            f"/{token}/{name}", base_url="http://127.0.0.1:8000", method=method, headers=headers, **options
        )

    def json(self, name, **options):
        answer = self.get(name, **options)
        assert answer.status_code == 200, answer.text
        return answer.json

    def send(self, content):
        return self.get("picture", method="POST", data=content)


@pytest.fixture(scope="module")
def network(photo_runs):
    return Network(photo_runs / "run", ["trainer.device=cpu"], Silence())


@pytest.fixture
def visitor(network, photo_runs):
    return Visitor(network, photo_runs / "run")


def png(size=(40, 30), color=(10, 200, 30)):
    file = io.BytesIO()
    Image.new("RGB", size, color).save(file, "PNG")
    return file.getvalue()


def test_a_dropped_picture_gets_the_answer_of_predict(visitor, photo_runs):
    file = photo_runs / "photos/test/green/0.png"
    layer = visitor.json("about")["shown"]
    picture = visitor.send(file.read_bytes()).json["picture"]
    found = visitor.json(f"look?picture={picture}&layer={layer}")
    said = cnntrain.load(str(photo_runs / "run"), device="cpu")(str(file))
    shares = {one["class"]: one["share"] for one in found["answers"]}
    assert list(shares) == ["blue", "green", "red"]  # few classes keep their places
    assert shares == pytest.approx(dict(said.classes), abs=1e-6)
    assert [one["class"] for one in found["answers"] if one["given"]] == [said.label] == [found["label"]]
    for part in (found["seen"], found["heat"], found["maps"]["picture"]):
        assert part.startswith("data:image/png;base64,")


def test_sliders_layers_and_classes_change_what_is_seen(visitor):
    picture = visitor.json("sample?index=3", method="POST")["picture"]
    layers = [layer["name"] for layer in visitor.json("about")["layers"]]
    plain = visitor.json(f"look?picture={picture}&layer={layers[0]}")
    moved = visitor.json(f"look?picture={picture}&layer={layers[0]}&right=5&turn=30&noise=0.2")
    other = visitor.json(f"look?picture={picture}&layer={layers[-1]}&label=2")
    assert plain["seen"] != moved["seen"]
    assert plain["answers"] != moved["answers"]
    assert other["seen"] == plain["seen"]
    assert other["maps"] != plain["maps"]
    assert other["label"] == "red"


def test_the_images_of_the_run_stand_with_their_classes_and_the_answers(visitor):
    answers = visitor.json("answers")
    assert len(answers) == visitor.json("about")["images"] > 0
    for one in answers:
        assert one["right"] == (one["given"] == one["labels"])
    assert visitor.json("filters")["about"].startswith("all ")
    state = visitor.json("state")
    assert state["done"]
    assert state["weights"] == "best epoch 1 of 1"
    assert not state["probe"]
    assert len(state["rows"]) == state["epochs"] == 1


@pytest.mark.parametrize(
    ("options", "code", "told"),
    [
        ({"token": "x"}, 403, "lacks its token"),
        ({"token": ""}, 403, "lacks its token"),
        ({"token": "\u00e9"}, 403, "lacks its token"),
        ({"host": "evil.example:8000"}, 403, "answers as 127.0.0.1 alone"),
        ({"host": "127.0.0.1:80"}, 403, "answers as 127.0.0.1 alone"),
        ({"headers": {"Origin": "http://evil.example"}}, 403, "answers itself alone"),
        ({"headers": {"Origin": "null"}}, 403, "answers itself alone"),
        ({"name": "../network.py"}, 404, "no such page"),
        ({"name": "%2e%2e/network.py"}, 404, "no such page"),
        ({"name": "assets/page.html"}, 404, "no such page"),
        ({"name": "picture"}, 404, "no such page"),
        ({"name": "look?picture=9"}, 404, "no longer kept"),
        ({"name": "sample?index=1e9", "method": "POST"}, 400, "index: must be a number from 0"),
        ({"name": "picture", "method": "POST", "data": b"no picture"}, 400, "no picture that can be shown"),
        ({"name": "picture", "method": "POST", "data": b""}, 400, "the file is empty"),
    ],
)
def test_what_is_not_for_this_page_gets_nothing(visitor, options, code, told):
    answer = visitor.get(**({"name": "about"} | options))
    assert answer.status_code == code
    assert told in answer.json["error"]
    assert set(answer.json) == {"error"}


@pytest.mark.parametrize("query", ["right=nan", "turn=181", "noise=-1", "noise=x", "label=3", "label=-1", "down=1e9"])
def test_numbers_beyond_their_limits_are_told(visitor, query):
    picture = visitor.send(png()).json["picture"]
    answer = visitor.get(f"look?picture={picture}&{query}")
    assert answer.status_code == 400
    assert answer.json["error"].startswith(f"{query.partition('=')[0]}: must be a number from ")


def test_a_photo_of_twelve_megapixels_is_taken_and_a_file_beyond_measure_is_not(visitor, monkeypatch):
    assert visitor.send(png((4000, 3000))).status_code == 200
    monkeypatch.setattr("cnntrain.play.site.MOST_BYTES", 1000)
    answer = visitor.send(bytes(1001))
    assert answer.status_code == 413
    assert "larger than" in answer.json["error"]


def test_only_so_many_pictures_are_kept(visitor):
    names = [visitor.send(png()).json["picture"] for _ in range(MOST_PICTURES + 1)]
    assert visitor.get(f"look?picture={names[0]}").status_code == 404
    assert visitor.get(f"look?picture={names[-1]}").status_code == 200


def test_each_answer_forbids_what_the_page_does_not_need(visitor):
    for answer in (visitor.get(""), visitor.get("about"), visitor.get("nothing"), visitor.get("", token="x")):
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["Cache-Control"] == "no-store"


def test_it_is_open_to_this_machine_alone(visitor):
    server = serve(visitor.site, 0)
    try:
        assert server.server_address[0] == "127.0.0.1"
    finally:
        server.server_close()


def test_a_port_in_use_is_one_line(photo_runs, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert cli.main(["play", str(photo_runs / "digits"), f"port={port}"]) == 2
    err = capsys.readouterr().err
    assert f"cnntrain: error: port: {port} is in use" in err
    assert err.count("in use") == err.count("error") == 1


def test_the_first_save_of_a_training_is_waited_for_and_of_another_run_it_is_told_to_be_missing(
    among_runs, monkeypatch, capsys
):
    run, kept = among_runs / "run", among_runs / "kept"
    (run / "checkpoints").rename(kept)
    (run / "results.json").unlink()
    sleeps = SimpleNamespace(sleep=Mock(side_effect=KeyboardInterrupt))
    monkeypatch.setattr("cnntrain.commands.play.time", sleeps)
    assert cli.main(["play", str(run)]) == 4
    with socket.create_server(("127.0.0.1", 0)) as taken, lock(run):
        assert cli.main(["play", str(run)]) == 0
        sleeps.sleep.side_effect = lambda _: kept.rename(run / "checkpoints")
        assert cli.main(["play", str(run), f"port={taken.getsockname()[1]}"]) == 2
    out, err = capsys.readouterr()
    assert err.count("has saved no checkpoint yet") == 1
    assert out.count("waiting for its first save") == 2
    assert " is in use" in err


def test_a_run_whose_images_are_gone_is_played_with_all_the_same(among_runs, monkeypatch):
    config = among_runs / "run/config.yaml"
    assert "photos" in config.read_text()
    network = Network(among_runs / "run", ["trainer.device=cpu", "data.root=gone"], Silence())
    assert network.note.startswith("without the images of the run: ")
    visitor = Visitor(network, among_runs / "run")
    assert visitor.json("answers") == []
    assert visitor.get("sample?index=0", method="POST").status_code == 404
    picture = visitor.send(png()).json["picture"]
    assert len(visitor.json(f"look?picture={picture}")["answers"]) == 3


def test_digits_are_drawn_on_black_as_large_as_those_of_the_run(photo_runs):
    about = Network(photo_runs / "digits", ["trainer.device=cpu"], Silence()).about()
    assert (about["channels"], about["ground"]) == (1, 0)
    assert 0.8 < about["fill"] <= 1


def test_a_network_that_answers_nan_says_so(photo_runs, network, visitor):
    weight = next(network._job.model.parameters())
    kept = weight.detach().clone()
    weight.data.fill_(np.nan)
    try:
        picture = visitor.send(png()).json["picture"]
        found = visitor.json(f"look?picture={picture}")
    finally:
        weight.data.copy_(kept)
    assert (found["finite"], found["answers"]) == (False, [])


def test_answers_that_are_no_numbers_are_none_of_the_run_images_either(network, visitor):
    weight = next(network._job.model.parameters())
    kept = weight.detach().clone()
    weight.data.fill_(np.nan)
    try:
        answers = visitor.json("answers")
    finally:
        weight.data.copy_(kept)
    assert {(one["share"], one["right"], *one["given"]) for one in answers} == {(None, False)}


def test_what_fails_inside_is_told_on_the_page_and_the_next_is_answered(visitor, monkeypatch):
    def fail(*_):
        raise MemoryError("no room")

    monkeypatch.setattr(Network, "answers", fail)
    answer = visitor.get("answers")
    assert (answer.status_code, answer.json) == (500, {"error": "there is no answer to this: MemoryError: no room"})
    assert visitor.get("about").status_code == 200


@pytest.mark.parametrize("line", [b"GET http://[x/ HTTP/1.1\r\n\r\n", b"\x16\x03\x01\r\n\r\n", b"GET /" + b"a" * 70000])
def test_requests_that_are_none_say_nothing_on_the_terminal(visitor, capfd, line):
    server = serve(visitor.site, 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
            client.sendall(line)
            client.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionError):
                client.recv(1)
    finally:
        server.shutdown()
    assert capfd.readouterr() == ("", "")


def test_saves_that_cannot_be_shown_are_told_and_the_next_good_one_is_taken(among_runs):
    last = among_runs / "run/checkpoints/last"
    (among_runs / "run/results.json").unlink()  # the run goes on
    network = Network(among_runs / "run", ["trainer.device=cpu"], Silence())
    shutil.copytree(last, among_runs / "kept")
    for taken, told in (
        ("sharp/checkpoints/last", "another run has taken this folder"),
        ("kept", "use another checkpoint"),
    ):
        shutil.rmtree(last)
        shutil.copytree(among_runs / taken, last, copy_function=shutil.copy)
        if taken == "kept":
            (last / "state.pt").write_bytes(bytes(9))
        assert not network.refresh()
        assert network.note.startswith("the newest save is not shown: ")
        assert told in network.note
    shutil.rmtree(last)
    assert not network.refresh()
    shutil.copytree(among_runs / "kept", last, copy_function=shutil.copy)
    assert network.refresh()
    assert network.note == ""
    assert network.weights == "last save: epoch 1, step 4"


def test_it_ends_once_the_answer_on_its_way_is_done_and_answers_no_more(network, photo_runs, monkeypatch):
    visitor, begun, go = Visitor(network, photo_runs / "run"), threading.Event(), threading.Event()
    monkeypatch.setattr(Network, "answers", lambda _: begun.set() or (go.wait(10) and []))
    asker = threading.Thread(target=visitor.get, args=["answers"])
    asker.start()
    assert begun.wait(10)
    closer = threading.Thread(target=visitor.site.close)
    closer.start()
    closer.join(0.05)
    assert closer.is_alive()
    go.set()
    closer.join(10)
    asker.join(10)
    assert not closer.is_alive()
    late = threading.Thread(target=visitor.get, args=["answers"], daemon=True)
    late.start()
    late.join(0.05)
    assert late.is_alive()
    visitor.site._work.release()
    late.join(10)


def test_a_long_course_is_not_read_all_the_time(network):
    reads = []  # each of which takes a while

    class Slow(Visitor):
        def __init__(self):
            self.site = Site(network, lambda: reads.append(time.sleep(0.05)) or {"rows": [len(reads)]})
            self.client = Client(self.site)

    visitor = Slow()
    assert [visitor.json("state")["rows"] for _ in range(3)] == [[1]] * 3
    visitor.site._stale = 0.0
    assert visitor.json("state")["rows"] == [2]


def test_names_of_classes_turn_no_text_around(photo_runs, monkeypatch):
    load, names = Network._load, ("a\u202eb", "c\x1b[31m", "d")

    def load_odd(self, *words):
        folder, state, job = load(self, *words)
        return folder, state, replace(job, data=replace(job.data, classes=[*names]))

    monkeypatch.setattr(Network, "_load", load_odd)
    visitor = Visitor(Network(photo_runs / "run", ["trainer.device=cpu"], Silence()), photo_runs / "run")
    shown = [r"a\u202eb", r"c\x1b[31m", "d"]
    picture = visitor.json("sample?index=0", method="POST")["picture"]
    assert visitor.json("about")["classes"] == shown
    assert [one["class"] for one in visitor.json(f"look?picture={picture}")["answers"]] == shown
    assert {name for one in visitor.json("answers") for name in (*one["labels"], *one["given"])} <= {*shown}
