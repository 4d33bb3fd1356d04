"""Reading a data file: from the checkout, else the cache, else by download; always verified."""

import gzip
import hashlib
import io
import secrets
import tarfile
import warnings
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from trivium.data.files import DataFile

# What gzip, zipfile and tarfile raise on bytes that are cut short, altered or not theirs.
_UNREADABLE = (
    EOFError,
    OSError,
    RuntimeError,
    tarfile.TarError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
)

_ANOTHER_FOLDER = "Set TRIVIUM_DATA to a folder that can be read and written."


class CorruptFileError(ValueError):
    """A file's content is not what its SHA-256 promises: altered, cut short or another file."""


class DownloadError(OSError):
    """No address of a file could be reached."""


def read(file: DataFile) -> bytes:
    """The content of a data file, unpacked and checked against its SHA-256.

    Looked for in the `data/` folder of the repository that this package runs from, then in the
    cache (`cache_folder()`), then downloaded into the cache. A corrupt file in the repository is
    reported and left alone; in the cache it is removed and downloaded again, with a warning. The
    cache only ever holds verified files: each is moved there whole.

    Raises CorruptFileError (a ValueError) naming file, expected and found hash; DownloadError
    (an OSError) naming file, addresses and the folder to put it into by hand.
    """
    checkout = _checkout_folder()
    if checkout is not None:
        path = checkout / file.name
        try:
            return unpack(path.read_bytes(), file, path)
        except FileNotFoundError:
            pass
        except CorruptFileError as error:
            error.add_note("The file belongs to the checkout: restore it with git.")
            raise
    path = cache_folder() / file.name
    try:
        return unpack(path.read_bytes(), file, path)
    except FileNotFoundError:
        pass
    except OSError as error:
        error.add_note(_ANOTHER_FOLDER)
        raise
    except CorruptFileError as error:
        path.unlink(missing_ok=True)
        warnings.warn(f"{error} Removed; downloading it again.", stacklevel=3)
    return _download(file, path)


def cache_folder() -> Path:
    """Where downloaded data is kept: the variable TRIVIUM_DATA, else the system's cache folder.

    A file put there by hand, under the name it has in the repository's `data/` folder, is used
    like a downloaded one.
    """
    import pooch

    return pooch.create(path=pooch.os_cache("trivium"), base_url="", env="TRIVIUM_DATA").abspath


def unpack(stored: bytes, file: DataFile, where: Path | str) -> bytes:
    """The content of a file as it is stored (`.gz` is decompressed), checked against its SHA-256.

    where: path or address that the bytes came from, for the message.
    Raises CorruptFileError.
    """
    if file.name.endswith(".gz"):
        try:
            content = gzip.decompress(stored)
        except _UNREADABLE as error:
            raise _corrupt(file, where, stored, f" before unpacking: {error}") from error
    else:
        content = stored
    if hashlib.sha256(content).hexdigest() != file.sha256:
        raise _corrupt(file, where, content)
    return content


def _checkout_folder() -> Path | None:
    """The repository's `data/` folder if this package runs from a checkout."""
    source = Path(__file__).resolve().parents[2]
    if source.name == "src" and (source.parent / "pyproject.toml").is_file():
        return source.parent / "data"
    return None


def _corrupt(file: DataFile, where: Path | str, found: bytes, remark: str = "") -> CorruptFileError:
    return CorruptFileError(
        f"{file.name} from {where} is corrupt: expected SHA-256 {file.sha256} ({file.size} bytes), "
        f"found {hashlib.sha256(found).hexdigest()} ({len(found)} bytes{remark})."
    )


def _download(file: DataFile, path: Path) -> bytes:
    """Download a file from its first address that gives it, store it at path, return its content.

    The bytes stay in memory until they are verified, so an interrupted download leaves nothing.
    """
    import pooch

    if not file.addresses:
        raise DownloadError(
            f"{file.name} belongs to the book's repository, and this copy of trivium does not know "
            f"a public one: put data/{file.name} from a clone into {path.parent}."
        )
    fetch = pooch.HTTPDownloader(progressbar=True, chunk_size=2**16)
    failures: list[Exception] = []
    for address in file.addresses:
        pooch.get_logger().info("Downloading %s from %s to %s.", file.name, address, path)
        buffer = io.BytesIO()
        try:
            fetch(address, buffer, None)
        except OSError as error:  # requests raises nothing else
            failures.append(DownloadError(f"{address}: {error}"))
            continue
        try:
            stored = _extract(buffer.getvalue(), file, address)
            content = unpack(stored, file, address)
        except CorruptFileError as error:
            failures.append(error)
            continue
        _store(stored, path)
        return content
    corrupt = any(isinstance(failure, CorruptFileError) for failure in failures)
    raise (CorruptFileError if corrupt else DownloadError)(
        "\n  ".join([f"{file.name} could not be downloaded:", *map(str, failures)])
        + f"\nTo install it by hand, get {path.name} from one of these addresses "
        f"(unpacked from its archive where the address is one, compressed with gzip where its name "
        f"ends in .gz and the address has it plain) and put it into {path.parent}."
    )


def _extract(download: bytes, file: DataFile, address: str) -> bytes:
    """The stored form of a file out of what its address gave: its archive's member, or all.

    Where a `.gz` is published unpacked, it is compressed here, as it lies in the repository.
    """
    member = PurePosixPath(file.name).name
    plain = member.removesuffix(".gz")

    def packed(name: str, content: bytes) -> bytes:
        return gzip.compress(content, mtime=0) if name == plain != member else content

    try:
        if address.endswith(".zip"):
            with zipfile.ZipFile(io.BytesIO(download)) as archive:
                for name in archive.namelist():
                    if PurePosixPath(name).name in (member, plain):
                        return packed(PurePosixPath(name).name, archive.read(name))
        elif address.endswith(".tar.gz"):
            with tarfile.open(fileobj=io.BytesIO(download), mode="r:gz") as tape:
                for entry in tape:
                    if entry.isfile() and PurePosixPath(entry.name).name in (member, plain):
                        extracted = tape.extractfile(entry)
                        if extracted is not None:
                            return packed(PurePosixPath(entry.name).name, extracted.read())
        else:
            return packed(PurePosixPath(address).name, download)
    except _UNREADABLE as error:
        raise _corrupt(file, address, download, f" of archive, unreadable: {error}") from error
    raise _corrupt(file, address, download, f" of archive, without a member {member}")


def _store(stored: bytes, path: Path) -> None:
    """Write a verified file in one step: readers and other processes see all of it or nothing."""
    part = path.with_name(f"{path.name}.{secrets.token_hex(8)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(stored)
        part.replace(path)
    except OSError as error:
        error.add_note(_ANOTHER_FOLDER)
        raise
    finally:
        part.unlink(missing_ok=True)
