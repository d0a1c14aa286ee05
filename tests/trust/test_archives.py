"""An archive gives every picture that it holds, or says that it is damaged."""

import gzip
import io
import tarfile
import unicodedata

import pytest

from .common import folder_of, load


def _tar(folder, mode="w"):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        tar.add(folder, arcname=folder.name)
    return buffer.getvalue()


def test_a_gzip_of_wrong_checksum_is_refused(tmp_path):
    """The last bytes of a tar.gz (CRC and length) don't fit its content."""
    content = bytearray(gzip.compress(_tar(folder_of(tmp_path / "pets"))))
    content[-8] ^= 0xFF
    (tmp_path / "pets.tar.gz").write_bytes(content)
    with pytest.raises(ValueError):
        load(tmp_path / "pets.tar.gz")


def test_a_tar_that_ends_early_is_refused(tmp_path):
    """A download stopped after some members: no picture is lost in silence."""
    content = _tar(folder_of(tmp_path / "pets"))
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        last = [m for m in tar.getmembers() if m.isfile()][-1]
    (tmp_path / "cut.tar").write_bytes(content[: last.offset])
    with pytest.raises(ValueError):
        load(tmp_path / "cut.tar")


def test_one_name_in_two_spellings_is_one_class(tmp_path):
    """A name with an accent, composed in train and decomposed in val, is the same class.

    The second is how a Mac writes it.
    """
    name = "caf\u00e9"
    folder_of(tmp_path / "data" / "train", classes=(unicodedata.normalize("NFC", name), "tea"))
    folder_of(
        tmp_path / "data" / "val", classes=(unicodedata.normalize("NFD", name), "tea"), seed=1
    )
    assert len(load(tmp_path / "data").classes) == 2
