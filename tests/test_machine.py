from pathlib import Path

from rlvtg.machine import decoders, packages, room


def test_versions_that_are_known_to_be_wrong_say_so():
    found = {package: (version, wrong) for package, version, wrong in packages()}
    assert found["transformers"][0].startswith("5.")
    assert any("text behind a video" in what for what in found["transformers"][1])
    assert found["av"][1] == []


def test_decoders_are_found_or_say_why_not():
    found = decoders()
    assert found["pyav"] == "found" and found["decord"] == "found"
    assert found["torchcodec"] == "found" or "install" in found["torchcodec"] or "load" in found["torchcodec"]


def test_room_is_that_of_the_disk_a_folder_would_be_made_on(tmp_path):
    free = room([tmp_path / "not" / "yet", Path("~/.cache")])
    assert list(free) == [str(tmp_path / "not" / "yet"), "~/.cache", "memory"]
    assert all(gigabytes > 0 for gigabytes in free.values())
