"""Finding, downloading and verifying files, against a server on this machine."""

import dataclasses
import gzip
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from trivium.data import CorruptFileError, DownloadError, cache_folder, fetch
from trivium.data.files import ADULT, JAPANESE_VOWELS, MOVIE_SNIPPETS, DataFile

CONTENT = b"the content of the file\n" * 4000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
SOURCE = Path(fetch.__file__).parents[2]
# Published plain, or in an archive: compressed in this repository alone.
COMPRESSED_HERE = JAPANESE_VOWELS.files + MOVIE_SNIPPETS.files + ADULT.files


class Server:
    """Serves what `answers` says: path -> (status, body, bytes promised, event to wait for).

    The event is waited for after half of the body is sent.
    """

    def __init__(self):
        self.answers = {}
        self.asked = []
        self.half_sent = threading.Semaphore(0)
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.asked.append(self.path)
                status, body, promised, event = server.answers.get(
                    self.path, (404, b"not here", 8, None)
                )
                self.send_response(status)
                self.send_header("Content-Length", str(promised))
                self.end_headers()
                try:
                    half = len(body) // 2
                    self.wfile.write(body[:half])
                    self.wfile.flush()
                    server.half_sent.release()
                    if event is not None:
                        event.wait(20)
                    self.wfile.write(body[half:])
                except ConnectionError:
                    pass  # the client was killed, as a test asks
                self.close_connection = True

            def log_message(self, *arguments):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def give(self, path, body, *, status=200, promised=None, event=None):
        """Serve body under path and return the address."""
        self.answers[path] = (status, body, len(body) if promised is None else promised, event)
        return self.address(path)

    def address(self, path):
        return f"http://127.0.0.1:{self.http.server_port}{path}"

    def close(self):
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


@pytest.fixture
def server():
    server = Server()
    yield server
    server.close()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, no checkout, no proxy: only the server can give the file."""
    monkeypatch.setattr(fetch, "_checkout_folder", lambda: None)
    monkeypatch.setenv("TRIVIUM_DATA", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path / "cache"


def files_in(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))


def plain(*addresses):
    return DataFile("set/file.txt", SHA256, len(CONTENT), addresses)


def compressed(*addresses):
    return DataFile("set/file.txt.gz", SHA256, len(CONTENT), addresses)


def zipped(name="folder/file.txt", content=CONTENT):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("folder/other.txt", b"another")
        archive.writestr(name, content)
    return buffer.getvalue()


def tarred(name="folder/file.txt", content=CONTENT):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        folder = tarfile.TarInfo("folder/file.txt.d/file.txt")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


# --- Where files come from


@pytest.mark.parametrize(
    ("path", "body", "make"),
    [
        ("/file.txt", CONTENT, plain),
        ("/file.txt.gz", gzip.compress(CONTENT, 1), compressed),
        ("/all.zip", zipped(), plain),
        ("/all.tar.gz", tarred(), plain),
    ],
    ids=["plain", "gz", "zip", "tar.gz"],
)
def test_download_is_unpacked_verified_and_kept(server, cache, path, body, make):
    file = make(server.give(path, body))
    assert fetch.read(file) == CONTENT
    assert files_in(cache) == [file.name]
    assert (cache / file.name).read_bytes() == (body if make is compressed else CONTENT)
    assert fetch.read(file) == CONTENT
    assert server.asked == [path]


@pytest.mark.parametrize(
    ("path", "body"), [("/file.txt", CONTENT), ("/all.zip", zipped()), ("/all.tar.gz", tarred())]
)
def test_file_published_unpacked_is_kept_compressed(server, cache, path, body):
    file = compressed(server.give(path, body))
    assert fetch.read(file) == CONTENT
    assert files_in(cache) == [file.name]
    assert gzip.decompress((cache / file.name).read_bytes()) == CONTENT


@pytest.mark.parametrize("which", [0, 1], ids=["first address", "second address"])
@pytest.mark.parametrize("file", COMPRESSED_HERE, ids=lambda file: Path(file.name).name)
def test_file_compressed_here_alone_is_downloaded_as_it_is_published(server, cache, file, which):
    content = gzip.decompress((SOURCE.parent / "data" / file.name).read_bytes())
    published = Path(file.name).name.removesuffix(".gz")
    path = urlsplit(file.addresses[which]).path
    if path.endswith(".zip"):
        body = zipped(published, content)
    elif path.endswith(".tar.gz"):
        body = tarred(f"folder/{published}", content)
    else:
        assert path.endswith(f"/{published}")
        body = content
    there = dataclasses.replace(file, addresses=(server.give(path, body),))
    assert fetch.read(there) == content
    assert files_in(cache) == [file.name]


def test_cached_file_has_the_permissions_of_any_new_file(server, cache, tmp_path):
    fetch.read(plain(server.give("/file.txt", CONTENT)))
    (tmp_path / "new").touch()
    assert (cache / "set/file.txt").stat().st_mode == (tmp_path / "new").stat().st_mode


def test_second_address_is_tried_when_the_first_fails(server, cache):
    first = server.give("/wrong/file.txt", b"something else")
    file = plain(server.address("/missing"), first, server.give("/file.txt", CONTENT))
    assert fetch.read(file) == CONTENT
    assert server.asked == ["/missing", "/wrong/file.txt", "/file.txt"]
    assert files_in(cache) == ["set/file.txt"]


def test_file_put_into_the_cache_by_hand_is_used_whatever_its_compression(cache):
    path = cache / "set" / "file.txt.gz"
    path.parent.mkdir(parents=True)
    for level in (1, 9):
        path.write_bytes(gzip.compress(CONTENT, level))
        assert fetch.read(compressed("http://127.0.0.1:1/none")) == CONTENT


def test_file_of_the_checkout_comes_first(server, cache, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "_checkout_folder", lambda: tmp_path / "data")
    file = plain(server.give("/file.txt", CONTENT))
    assert fetch.read(file) == CONTENT  # not in the checkout: downloaded
    (tmp_path / "data" / "set").mkdir(parents=True)
    (tmp_path / "data" / file.name).write_bytes(CONTENT)
    (cache / file.name).unlink()
    assert fetch.read(file) == CONTENT
    assert server.asked == ["/file.txt"]
    assert files_in(cache) == []


def test_checkout_is_found_from_the_package_and_not_from_the_working_folder(tmp_path):
    copied = tmp_path / "lib" / "site-packages"
    (copied / "trivium" / "data").mkdir(parents=True)
    for path in [SOURCE / "trivium" / "__init__.py", *(SOURCE / "trivium" / "data").glob("*.py")]:
        (copied / path.relative_to(SOURCE)).write_bytes(path.read_bytes())
    (tmp_path / "data").mkdir()
    (tmp_path / "pyproject.toml").touch()
    ask = "from trivium.data import fetch; print(fetch._checkout_folder())"
    for folder, expected in ((SOURCE, SOURCE.parent / "data"), (copied, None)):
        answer = subprocess.run(
            [sys.executable, "-c", ask],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(folder)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert answer.stdout.strip() == str(expected)


def test_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("TRIVIUM_DATA", str(tmp_path / "here"))
    assert cache_folder() == tmp_path / "here"
    monkeypatch.delenv("TRIVIUM_DATA")
    assert "trivium" in cache_folder().name.lower()


def test_importing_the_data_package_imports_no_jax():
    code = (
        "import sys, trivium.data; trivium.data.japanese_vowels(); "
        "sys.exit(any(name.split('.')[0] in ('jax', 'jaxlib', 'flax') for name in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- Files that are not what they should be


def test_corrupt_file_of_the_checkout_is_reported_and_left_alone(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "_checkout_folder", lambda: tmp_path)
    path = tmp_path / "set" / "file.txt"
    path.parent.mkdir()
    path.write_bytes(CONTENT[:-1])
    found = hashlib.sha256(CONTENT[:-1]).hexdigest()
    with pytest.raises(CorruptFileError) as caught:
        fetch.read(plain("http://127.0.0.1:1/none"))
    for part in ("set/file.txt", str(path), SHA256, found, str(len(CONTENT) - 1)):
        assert part in str(caught.value)
    assert "restore it with git" in caught.value.__notes__[0]
    assert path.read_bytes() == CONTENT[:-1]
    assert not cache.exists()


CORRUPT = {
    "another content": gzip.compress(b"another"),
    "one bit flipped": bytes([*gzip.compress(CONTENT)[:60], gzip.compress(CONTENT)[60] ^ 1])
    + gzip.compress(CONTENT)[61:],
    "cut short": gzip.compress(CONTENT)[:-20],
    "only a header": gzip.compress(CONTENT)[:5],
    "empty": b"",
    "not compressed": CONTENT,
    "garbage after the end": gzip.compress(CONTENT) + b"garbage",
    "a page of HTML": b"<!DOCTYPE html><title>Sign in to the network</title>",
}


@pytest.mark.parametrize("kind", CORRUPT)
def test_corrupt_file_in_the_cache_is_removed_and_downloaded_again(server, cache, kind):
    file = compressed(server.give("/file.txt.gz", gzip.compress(CONTENT)))
    path = cache / file.name
    path.parent.mkdir(parents=True)
    path.write_bytes(CORRUPT[kind])
    with pytest.warns(UserWarning, match=f"(?s){SHA256}.*Removed; downloading it again"):
        assert fetch.read(file) == CONTENT
    assert fetch.read(file) == CONTENT
    assert files_in(cache) == [file.name]
    assert server.asked == ["/file.txt.gz"]


def test_corrupt_file_in_the_cache_is_gone_even_if_the_download_fails(server, cache):
    file = plain(server.address("/missing"))
    path = cache / file.name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"half")
    with pytest.warns(UserWarning, match="Removed"), pytest.raises(DownloadError):
        fetch.read(file)
    assert files_in(cache) == []


@pytest.mark.parametrize("kind", CORRUPT)
def test_corrupt_download_is_refused_and_nothing_is_kept(server, cache, kind):
    address = server.give("/file.txt.gz", CORRUPT[kind])
    with pytest.raises(CorruptFileError) as caught:
        fetch.read(compressed(address))
    message = str(caught.value)
    for part in ("set/file.txt.gz", address, f"expected SHA-256 {SHA256}", str(cache / "set")):
        assert part in message
    stored = hashlib.sha256(CORRUPT[kind]).hexdigest()
    assert f"found {stored}" in message or kind in {"another content", "empty"}
    assert files_in(cache) == []


@pytest.mark.parametrize(
    ("path", "body", "remark"),
    [
        ("/all.zip", zipped(name="folder/something.txt"), "without a member file.txt"),
        ("/all.zip", zipped(content=b"another"), "found " + hashlib.sha256(b"another").hexdigest()),
        ("/all.zip", zipped()[:-30], "of archive, unreadable"),
        ("/all.zip", zipped()[:100] + b"\0\0\0" + zipped()[103:], "of archive, unreadable"),
        ("/all.zip", b"", "of archive, unreadable"),
        ("/all.tar.gz", tarred(name="folder/something.txt"), "without a member file.txt"),
        ("/all.tar.gz", tarred(content=b"other"), "found " + hashlib.sha256(b"other").hexdigest()),
        ("/all.tar.gz", tarred()[:-60], "of archive, unreadable"),
        ("/all.tar.gz", tarred()[:40], "of archive, unreadable"),
        ("/all.tar.gz", CONTENT, "of archive, unreadable"),
        ("/all.tar.gz", b"", "of archive, unreadable"),
    ],
    # Of its own: a .tar.gz holds the time, and a test must have one name in every process.
    ids=["zip other member", "zip other content", "zip cut", "zip spoilt", "zip empty",
         "tar other member", "tar other content", "tar cut", "tar header", "no tar", "tar empty"],
)  # fmt: skip
def test_corrupt_archive_is_refused_and_nothing_is_kept(server, cache, path, body, remark):
    address = server.give(path, body)
    with pytest.raises(CorruptFileError) as caught:
        fetch.read(plain(address))
    for part in ("set/file.txt", address, f"expected SHA-256 {SHA256}", "found ", remark):
        assert part in str(caught.value)
    assert files_in(cache) == []


# --- Networks that fail


def test_connection_cut_in_the_middle_keeps_nothing(server, cache):
    address = server.give("/file.txt", CONTENT[:50_000], promised=len(CONTENT))
    with pytest.raises((DownloadError, CorruptFileError)) as caught:
        fetch.read(plain(address))
    assert address in str(caught.value)
    assert "set/file.txt" in str(caught.value)
    assert files_in(cache) == []


@pytest.mark.parametrize("status", [403, 404, 500, 503])
def test_refusing_server_is_named_with_its_status(server, cache, status):
    address = server.give("/file.txt", CONTENT, status=status)
    with pytest.raises(DownloadError, match=str(status)) as caught:
        fetch.read(plain(address))
    assert address in str(caught.value)
    assert files_in(cache) == []


def test_no_network_says_which_file_which_addresses_and_where_to_put_it(server, cache):
    server.close()
    addresses = (server.address("/file.txt"), "http://name.invalid/all.zip")
    with pytest.raises(DownloadError) as caught:
        fetch.read(plain(*addresses))
    for part in ("set/file.txt", *addresses, "by hand", str(cache / "set")):
        assert part in str(caught.value)
    assert isinstance(caught.value, OSError)
    assert not cache.exists()


def test_folder_that_is_none_is_an_error_that_says_what_to_set(server, cache):
    file = plain(server.give("/file.txt", CONTENT))
    cache.write_text("a file where the folder should be")
    with pytest.raises(NotADirectoryError) as caught:
        fetch.read(file)
    assert "TRIVIUM_DATA" in caught.value.__notes__[0]
    cache.unlink()
    cache.symlink_to(cache.parent / "nowhere")
    with pytest.raises(FileExistsError) as caught:
        fetch.read(file)
    assert "TRIVIUM_DATA" in caught.value.__notes__[0]


CHILD = """
import sys
from trivium.data import fetch
from trivium.data.files import DataFile
fetch._checkout_folder = lambda: None
content = fetch.read(DataFile("set/file.txt", sys.argv[1], int(sys.argv[2]), (sys.argv[3],)))
print(len(content))
"""


def start_child(address, cache):
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, SHA256, str(len(CONTENT)), address],
        env={**os.environ, "TRIVIUM_DATA": str(cache), "NO_PROXY": "127.0.0.1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_processes_that_download_the_same_file_both_succeed(server, cache):
    finish = threading.Event()
    address = server.give("/file.txt", CONTENT, event=finish)
    children = [start_child(address, cache) for _ in range(2)]
    for _ in children:
        assert server.half_sent.acquire(timeout=30)
    finish.set()  # both are in the middle of the download
    for child in children:
        output, errors = child.communicate(timeout=30)
        assert child.returncode == 0, errors
        assert output.strip() == str(len(CONTENT))
    assert server.asked == ["/file.txt", "/file.txt"]
    assert files_in(cache) == ["set/file.txt"]
    assert (cache / "set/file.txt").read_bytes() == CONTENT


def test_process_killed_in_the_middle_of_a_download_leaves_nothing(server, cache):
    finish = threading.Event()
    child = start_child(server.give("/file.txt", CONTENT, event=finish), cache)
    assert server.half_sent.acquire(timeout=30)
    time.sleep(0.1)  # let the first half arrive
    child.kill()
    child.communicate(timeout=30)
    finish.set()
    assert not cache.exists() or files_in(cache) == []
    assert fetch.read(plain(server.give("/file.txt", CONTENT))) == CONTENT
