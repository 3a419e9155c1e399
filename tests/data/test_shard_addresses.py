"""Which shards a pattern, a folder or an address names, and how those are fetched that lie elsewhere."""

import os
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from shard_files import build, faults, is_right, write_shards

from cnntrain import cli
from cnntrain.config.compose import compose_settings
from cnntrain.config.schema.titles import name_of_folder
from cnntrain.config.shards import absolute, find_shards
from cnntrain.data import shard_fetch
from cnntrain.errors import ConfigError, DataError, FileSystemError, UnsafeError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


# ---- which shards ----


def test_braces_are_replaced_by_numbers_of_their_width_and_by_names(tmp_path):
    for split, count in (("train", 12), ("val", 2)):
        write_shards(tmp_path, count, 1, split + "-{:04d}.tar")
    found = find_shards(f"{tmp_path}/{{train-{{0000..0011}},val-{{0000..0001}}}}.tar")
    wanted = [f"train-{number:04d}" for number in range(12)] + ["val-0000", "val-0001"]
    assert found == [f"{tmp_path}/{name}.tar" for name in wanted]
    assert find_shards(f"{tmp_path}/{{train,val}}-0001.tar") == [
        f"{tmp_path}/{name}-0001.tar" for name in ("train", "val")
    ]
    assert find_shards(f"{tmp_path}/val-*.tar") == find_shards(f"{tmp_path}/val-000{{0..1}}.tar")
    assert sorted(found) == find_shards(str(tmp_path))
    assert find_shards(f"{tmp_path}/val-0001.tar::https://a.b/{{9..10}}.tar")[1:] == [
        "https://a.b/9.tar",
        "https://a.b/10.tar",
    ]


def test_the_command_line_takes_a_pattern_as_it_is_typed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for typed in ("s/{000..099}.tar", "s/{train,val}-{00..09}.tar", "s/{train-{0..3},val-{0..1}}.tar"):
        settings = compose_settings(["data=webdataset", f"data.root={typed}"])
        assert settings.data.root == f"{tmp_path}/{typed}"
    assert absolute("a.tar::https://h/b.tar::../c.tar", "/x/y") == "/x/y/a.tar::https://h/b.tar::/x/c.tar"


def test_a_run_is_headed_by_the_name_before_the_numbers():
    patterns = {
        "/data/shards/{000..099}.tar": "shards",
        "/data/imagenet-train-{0000..1023}.tar": "imagenet",
        "/data/food/{train,val}-{00..09}.tar": "food",
        "/data/food/train/*.tar": "food",
        "https://a.b/flowers/v_{0..3}.tar": "v",
        "/data/food": "food",
    }
    assert {root: name_of_folder(root) for root in patterns} == patterns


@pytest.mark.parametrize(
    ("root", "error", "fault"),
    [
        ("pipe:cat x.tar", UnsafeError, "pipe: would run a command of a shell (given pipe:cat x.tar)"),
        ("s3://bucket/{0..1}.tar", ConfigError, "read from files, http and https (given s3://bucket/0.tar)"),
        ("https:///x.tar", ConfigError, "https:///x.tar names no host"),
        ("/none/{0..99999999}.tar", DataError, "names more than 100,000 shards"),
        ("/none/{0..999}/{0..999}.tar", DataError, "names more than 100,000 shards"),
        ("/none/*.tar", DataError, "/none/*.tar is the name of no file"),
    ],
)
def test_what_names_no_shards_is_told_in_one_line(root, error, fault):
    with pytest.raises(error) as caught:
        find_shards(root)
    assert len(caught.value.lines()) == 1
    assert fault in str(caught.value)


def test_shards_missing_from_a_pattern_are_told_together_before_torch_is_needed(tmp_path, capsys):
    write_shards(tmp_path, 2)
    assert cli.main(["data=webdataset", f"data.root={tmp_path}/{{000..009}}.tar"]) == 3
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].endswith(
        f"data.root: {tmp_path}/002.tar is not there; fetch the shard, or leave it out of the pattern"
    )
    assert [line.partition("000.tar")[0] for line in lines[1:5]] == lines[1:5]
    assert lines[5].endswith("data.root: and 3 more not there, beside 2 shards that are; mend the pattern")
    assert cli.main(["data=webdataset", f"data.root={tmp_path}/shards"]) == 3
    told = f"{tmp_path}/shards is not there; give the folder of the shards, or DIR/{{000..099}}.tar\n"
    assert capsys.readouterr().err.endswith(f"data.root: {told}")


def test_shards_given_as_a_folder_of_photos_are_told_what_they_are(tmp_path, capsys):
    assert cli.main(["data=imagefolder", f"data.root={write_shards(tmp_path)}/{{000..003}}.tar"]) == 3
    assert "003}.tar is not there; shards of tar files are read with data=webdataset" in capsys.readouterr().err


def test_a_jump_in_the_numbers_of_a_folder_is_warned_of(tmp_path):
    os.remove(write_shards(tmp_path, 5) / "002.tar")
    warnings = build(tmp_path).warnings
    assert "data.root: the numbers of the shards jump from 1 to 3; is a shard missing between them?" in warnings


# ---- over the network ----


class Handler(SimpleHTTPRequestHandler):
    """Files of a folder; `short.tar` breaks off, `gone.tar` is not there."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path == "/short.tar":
            self.send_response(200)
            self.send_header("Content-Length", "100000")
            self.end_headers()
            self.wfile.write(b"x" * 100)
        elif self.path == "/aside.tar":
            self.send_response(302)
            self.send_header("Location", "ftp://127.0.0.1/x.tar")
            self.end_headers()
        else:
            super().do_GET()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(Handler, "asked", [])
    monkeypatch.setattr(shard_fetch, "TRIES", 1)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "server").mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path / "server"))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_shards_of_an_address_are_fetched_once_and_are_the_data_set_of_the_files(tmp_path, server):
    write_shards(tmp_path / "server")
    data = build(f"{server}/{{000..003}}.tar")
    assert sorted(Handler.asked) == [f"/00{number}.tar" for number in range(4)]
    assert is_right(data.train)
    assert build(f"{server}/{{000..003}}.tar").fingerprint == data.fingerprint == build(tmp_path / "server").fingerprint
    assert len(Handler.asked) == 4


def test_shards_that_cannot_be_had_are_told_together_and_leave_nothing(tmp_path, server):
    write_shards(tmp_path / "server")
    lines = faults(f"{server}/{{000,gone,short,aside}}.tar")
    assert [line.partition("; ")[0].removeprefix(f"data.root: {server}/") for line in lines] == [
        "aside.tar could not be fetched in 1 tries (<urlopen error unknown url type: ftp>)",
        "gone.tar is not to be had (404 File not found)",
        "short.tar could not be fetched in 1 tries (100 of 100,000 bytes came)",
    ]
    kept = [path.name for path in Path(os.environ["XDG_CACHE_HOME"]).rglob("*") if path.is_file()]
    assert kept == ["000.tar"]


def test_an_address_names_a_file_inside_the_cache_whatever_it_says():
    urls = [
        "https://a.b/../../etc/x.tar",
        "https://a.b/%2e%2e/%2e%2e%2fx.tar",
        "https://a.b/",
        "https://a.b/x.tar?y=../z",
    ]
    places = [shard_fetch._place(url).resolve() for url in urls]
    home = (Path(os.environ["XDG_CACHE_HOME"]) / "cnntrain" / "shards").resolve()
    assert all(place.parent.parent == home and place.suffix == ".tar" for place in places)
    assert len(set(places)) == 4


def test_a_disk_too_small_for_all_shards_is_told_before_the_first_is_there(tmp_path, server, monkeypatch):
    write_shards(tmp_path / "server", 2)
    usage = type("Usage", (), {"free": 15_000})
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(FileSystemError, match=r"has no space for 2 shards \(No space left on device; it needs"):
        build(f"{server}/{{000..001}}.tar")
