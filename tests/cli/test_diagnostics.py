"""heg-doctor: what it knows to be wrong, and its page."""

import pytest

from heg.cli import common, diagnostics, doctor

GOOD = {"jax": "0.12.0", "jaxlib": "0.12.0"}


@pytest.mark.parametrize(
    ("versions", "environment", "processes", "words"),
    [
        ({"jax": "0.10.2", "jaxlib": "0.10.2"}, {}, 1, "deadlocks"),
        ({"jax": "0.12.0", "jaxlib": "0.11.0"}, {}, 1, "jax 0.12.0 with jaxlib 0.11.0"),
        (GOOD, {"JAX_ENABLE_X64": "False"}, 1, "single precision"),
        (GOOD, {"JAX_DEFAULT_DTYPE_BITS": "32"}, 1, "single precision"),
        (GOOD, {"NVIDIA_TF32_OVERRIDE": "1"}, 1, "TF32"),
        (GOOD, {"HTTPS_PROXY": "http://p:1"}, 2, "HTTPS_PROXY"),
        (GOOD, {"JAX_COMPILATION_CACHE_DIR": "/c"}, 1, "hang"),
        (GOOD | {"jax-cuda13-plugin": "0.12.0"}, {}, 1, "a GPU plugin is installed"),
    ],
)
def test_each_known_trouble_is_found_with_its_remedy(versions, environment, processes, words):
    (finding,) = diagnostics.findings(versions, environment, processes)
    assert words in finding.what and finding.remedy


def test_nothing_is_found_where_nothing_is_wrong():
    harmless = {"JAX_ENABLE_X64": "1", "JAX_PLATFORMS": "cpu", "no_proxy": "localhost"}
    assert diagnostics.findings(GOOD, harmless | {"HTTPS_PROXY": "http://p:1"}, 1) == []
    assert diagnostics.findings(GOOD, harmless, 8) == []


def test_its_page_names_software_devices_and_speed(capsys, monkeypatch):
    monkeypatch.setattr(diagnostics, "seconds_of_step", lambda: 0.5)  # compiles for long
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    with pytest.raises(SystemExit) as caught:
        doctor.doctor([])
    page = capsys.readouterr().out
    assert caught.value.code == common.FAILED
    for words in (
        "jax ",
        "none: one process",
        "cpu:0",
        "GFlop/s",
        "collective",
        "0.500 s",
        "unset it",
    ):
        assert words in page
