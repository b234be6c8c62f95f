"""Finding recordings and reading their headers."""

from __future__ import annotations

import logging
import os
import stat
import struct
from pathlib import Path
from types import SimpleNamespace

import pytest

from bacpipe.audio import files
from bacpipe.audio.files import find_audio_files, read_recording
from bacpipe.errors import AudioError, NoRecordingsError


def names(audio_dir: Path, *args: object) -> list[str]:
    return [path.relative_to(audio_dir).as_posix() for path in find_audio_files(audio_dir, *args)]


def touch(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


class TestFindAudioFiles:
    def test_is_recursive_and_sorted_by_relative_path(self, tmp_path):
        touch(tmp_path, "b/2.wav", "b/1.wav", "a.wav", "b/c/3.flac", "z.mp3", "note.txt")
        assert names(tmp_path) == ["a.wav", "b/1.wav", "b/2.wav", "b/c/3.flac", "z.mp3"]

    @pytest.mark.parametrize(
        "name", ["x.WAV", "x.Wav", "x.FLAC", "x.mp3", "x.ogg", "x.aif", "x.AIFF", "x.y.wav"]
    )
    def test_suffix_case_is_ignored(self, tmp_path, name):
        touch(tmp_path, name)
        assert names(tmp_path) == [name]

    @pytest.mark.parametrize("suffixes", [[".WAV"], ["wav"], ["Wav", ".wav"], "wav"])
    def test_suffixes_may_lack_the_dot_or_have_any_case(self, tmp_path, suffixes):
        touch(tmp_path, "a.wav", "b.WAV", "c.flac", "wav", "dwav")
        assert names(tmp_path, suffixes) == ["a.wav", "b.WAV"]

    def test_no_suffix_at_all_is_a_mistake(self, tmp_path):
        with pytest.raises(ValueError, match="suffixes is empty"):
            find_audio_files(tmp_path, [" ", "."])

    def test_hidden_files_and_folders_are_skipped(self, tmp_path):
        touch(tmp_path, "x.wav", "._x.wav", ".wav", ".trash/y.wav")
        assert names(tmp_path) == ["x.wav"]

    def test_same_stem_with_two_suffixes_is_two_recordings(self, tmp_path):
        touch(tmp_path, "x.wav", "x.flac")
        assert names(tmp_path) == ["x.flac", "x.wav"]

    def test_folder_named_like_a_recording_is_listed_and_entered(self, tmp_path):
        touch(tmp_path, "x.wav/inside.wav")
        assert names(tmp_path) == ["x.wav", "x.wav/inside.wav"]

    def test_dangling_link_is_listed(self, tmp_path):
        (tmp_path / "x.wav").symlink_to(tmp_path / "gone.wav")
        assert names(tmp_path) == ["x.wav"]

    def test_linked_folders_are_followed_once(self, tmp_path):
        audio_dir = tmp_path / "audio"
        touch(audio_dir, "b/x.wav")
        touch(tmp_path, "elsewhere/y.wav")
        (audio_dir / "a_link").symlink_to(audio_dir / "b")  # sorted first, yet "b" wins
        (audio_dir / "b" / "loop").symlink_to(audio_dir)
        (audio_dir / "c_link").symlink_to(tmp_path / "elsewhere")
        assert names(audio_dir) == ["b/x.wav", "c_link/y.wav"]

    def test_folders_without_numbers_are_all_found(self, tmp_path, monkeypatch):
        """Drives of sshfs on Windows and WebDAV number all files and folders 0."""
        touch(tmp_path, "x.wav", "a/y.wav", "a/b/z.wav", "c/v.wav")
        usual = Path.stat

        def unnumbered(path, **how):
            found = list(usual(path, **how)[:10])
            found[1] = found[2] = 0
            return os.stat_result(found)

        monkeypatch.setattr(Path, "stat", unnumbered)
        assert names(tmp_path) == ["a/b/z.wav", "a/y.wav", "c/v.wav", "x.wav"]

    @pytest.mark.parametrize(
        ("attributes", "is_link"), [(stat.FILE_ATTRIBUTE_REPARSE_POINT | 16, True), (16, False)]
    )
    def test_junctions_of_windows_are_links(self, monkeypatch, attributes, is_link):
        entry = SimpleNamespace(
            stat=lambda follow_symlinks: SimpleNamespace(st_file_attributes=attributes),
            is_symlink=lambda: False,
        )
        monkeypatch.setattr(files, "os", SimpleNamespace(name="nt"))
        assert files._is_link(entry) is is_link

    def test_linked_file_is_a_recording(self, tmp_path):
        touch(tmp_path, "elsewhere/y.dat", "audio/x.wav")
        (tmp_path / "audio" / "y.wav").symlink_to(tmp_path / "elsewhere" / "y.dat")
        assert names(tmp_path / "audio") == ["x.wav", "y.wav"]

    def test_missing_folder(self, tmp_path):
        with pytest.raises(NoRecordingsError, match=r"nowhere does not exist .*\.wav, \.flac"):
            find_audio_files(tmp_path / "nowhere")
        assert issubclass(NoRecordingsError, FileNotFoundError)
        assert list(tmp_path.iterdir()) == []

    def test_file_instead_of_a_folder(self, tmp_path):
        touch(tmp_path, "x.wav")
        with pytest.raises(NoRecordingsError, match=r"x\.wav is a file, not a folder"):
            find_audio_files(tmp_path / "x.wav")

    def test_folder_without_recordings(self, tmp_path):
        touch(tmp_path, "a.txt", "sub/b.csv", ".hidden.wav")
        with pytest.raises(NoRecordingsError, match=r"holds no recordings .*\.mp3"):
            find_audio_files(tmp_path)

    def test_unreadable_folder(self, tmp_path, monkeypatch):
        def refuse(path):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(os, "scandir", refuse)
        with pytest.raises(NoRecordingsError, match="cannot be read: Permission denied"):
            find_audio_files(tmp_path)

    def test_unreadable_subfolder_is_logged(self, tmp_path, monkeypatch, caplog):
        touch(tmp_path, "a.wav", "locked/b.wav")
        scandir = os.scandir

        def refuse(path):
            if "locked" in str(path):
                raise PermissionError(13, "Permission denied")
            return scandir(path)

        monkeypatch.setattr(os, "scandir", refuse)
        with caplog.at_level(logging.WARNING):
            assert names(tmp_path) == ["a.wav"]
        assert "locked" in caplog.text


class TestReadRecording:
    def test_describes_a_recording(self, write_audio, tmp_path):
        path = write_audio("site/x.wav", seconds=1.5, rate=24_000, channels=2)
        recording = read_recording(path, tmp_path)
        assert recording.name == "site/x.wav"
        assert recording.path == path
        assert (recording.sample_rate, recording.channels) == (24_000, 2)
        assert (recording.frames, recording.duration) == (36_000, 1.5)
        assert recording.size == path.stat().st_size
        assert recording.mtime_ns == path.stat().st_mtime_ns

    def test_name_without_audio_dir(self, write_audio):
        assert read_recording(write_audio("site/x.wav")).name == "x.wav"

    def test_path_outside_audio_dir(self, write_audio, tmp_path):
        with pytest.raises(ValueError, match="subpath"):
            read_recording(write_audio("x.wav"), tmp_path / "other")

    @pytest.mark.parametrize("name", ["ä ñ 鳥.wav", os.fsdecode(b"caf\xe9.wav")])
    def test_unusual_names(self, write_audio, tmp_path, name):
        plain = write_audio("plain.wav")
        try:
            path = plain.rename(tmp_path / name)
        except OSError:
            pytest.skip("the file system does not take this name")
        assert read_recording(path).frames == 16_000

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"", r"is empty \(0 bytes\)"),
            (b"R", "is not audio"),
            (b"some text, renamed\n" * 100, "is not audio"),
            (b"\xff", "is not audio"),
            (b"\xff\xfb", "is not audio"),
            (b"ID3\x04\x00\x00\x7f\x7f\x7f\x7f" + bytes(100), "is not audio"),
            (b"OggS" + bytes(10), "is not audio"),
            (b"RIFF\x24\0\0\0WAVE", "is not audio"),
            (b"RIFF" + bytes(10_000), "is not audio"),
        ],
    )
    def test_not_audio(self, tmp_path, content, reason):
        path = tmp_path / "x.wav"
        path.write_bytes(content)
        with pytest.raises(AudioError, match=rf"^x\.wav: {reason}"):
            read_recording(path)

    def test_missing_file(self, tmp_path):
        with pytest.raises(AudioError, match=r"^x\.wav: is missing"):
            read_recording(tmp_path / "x.wav")

    def test_dangling_link(self, tmp_path):
        path = tmp_path / "x.wav"
        path.symlink_to(tmp_path / "gone")
        with pytest.raises(AudioError, match=r"^x\.wav: is a link to a file that does not exist"):
            read_recording(path)

    def test_link_to_itself(self, tmp_path):
        path = tmp_path / "x.wav"
        path.symlink_to(path)
        with pytest.raises(AudioError, match=r"^x\.wav: "):
            read_recording(path)

    def test_folder(self, tmp_path):
        (tmp_path / "x.wav").mkdir()
        with pytest.raises(AudioError, match=r"^x\.wav: is a folder"):
            read_recording(tmp_path / "x.wav")

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
    def test_pipe_does_not_block(self, tmp_path):
        os.mkfifo(tmp_path / "x.wav")
        with pytest.raises(AudioError, match=r"^x\.wav: is not a regular file"):
            read_recording(tmp_path / "x.wav")

    def test_no_permission(self, write_audio, monkeypatch):
        path = write_audio("x.wav")

        def refuse(*args):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "open", refuse)
        with pytest.raises(AudioError, match=r"^x\.wav: cannot be read \(Permission denied\)"):
            read_recording(path)

    @pytest.mark.parametrize("name", ["x.wav", "x.aiff"])
    def test_no_samples(self, write_audio, name):
        with pytest.raises(AudioError, match=rf"^{name}: holds no audio \(0 samples\)\.$"):
            read_recording(write_audio(name, seconds=0))

    def test_header_only(self, write_audio, tmp_path):
        path = tmp_path / "x.wav"
        path.write_bytes(write_audio("whole.wav", seconds=2).read_bytes()[:44])
        with pytest.raises(AudioError, match=r"holds no audio .* promises 2\.00 seconds"):
            read_recording(path)

    @pytest.mark.parametrize("offset", [22, 24])  # channels, rate
    def test_impossible_header(self, write_audio, offset):
        path = write_audio("x.wav")
        content = bytearray(path.read_bytes())
        content[offset : offset + 2] = bytes(2)
        path.write_bytes(content)
        with pytest.raises(AudioError, match=r"^x\.wav: is not audio"):
            read_recording(path)

    @pytest.mark.parametrize("name", ["x.wav", "x.aiff", "x.flac"])
    def test_truncated_file_has_the_promised_length(self, write_audio, cut, name):
        path = cut(write_audio(name, seconds=2, channels=2), 0.4)
        assert read_recording(path).duration == 2.0

    def test_never_completed_header_means_unknown_length(self, write_audio):
        path = write_audio("x.wav")
        content = bytearray(path.read_bytes())
        for riff_size, data_size in [(0, 0), (36, 0), (0xFFFFFFFF, 0xFFFFFFFF), (0, 0x7FFFF000)]:
            struct.pack_into("<I", content, 4, riff_size)
            struct.pack_into("<I", content, 40, data_size)
            path.write_bytes(content)
            assert read_recording(path).frames == 16_000

    def test_sizes_above_4_gib_wrap_around(self, tmp_path):
        path = tmp_path / "x.wav"
        size = 5 * 2**30
        form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 2, 96_000, 384_000, 4, 16)
        with path.open("wb") as file:
            file.write(struct.pack("<4sI4s", b"RIFF", (size + 36) % 2**32, b"WAVE") + form)
            file.write(struct.pack("<4sI", b"data", size % 2**32))
            try:
                file.truncate(44 + size)
            except OSError:
                pytest.skip("the file system has no sparse files")
        assert read_recording(path).frames == size // 4

    def test_flac_of_undeclared_length_is_counted(self, write_audio):
        path = write_audio("x.flac")
        content = bytearray(path.read_bytes())
        content[21] &= 0xF0  # the low bits and the next four bytes: total number of samples
        content[22:26] = bytes(4)
        path.write_bytes(content)
        assert read_recording(path).frames == 16_000


AUDIO = Path(__file__).parents[3] / "shared" / "audio"


@pytest.mark.skipif(not AUDIO.is_dir(), reason="needs the shared recordings")
def test_real_recordings_are_whole():
    recordings = [read_recording(path, AUDIO) for path in find_audio_files(AUDIO)]
    assert len(recordings) == 9
    assert {recording.sample_rate for recording in recordings} == {
        48_000,
        192_000,
        250_000,
        312_500,
    }
