import http.client
from urllib.parse import urlsplit

import numpy as np
import pytest
from support.small_result import moving_squares, write_result

import entitysam
from entitysam.edits.operations import Merge
from entitysam.io.readers.base import InputError
from entitysam.structures import VideoSegments

FRAMES, IDS = moving_squares(6, (36, 64))
SEGMENTS = VideoSegments.of(IDS, [0.9, 0.8, 0.7, 0.6])


def test_segments_are_shown_and_corrected(tmp_path):
    player = entitysam.view(SEGMENTS, FRAMES, folder=tmp_path / "kept", fps=5.0)
    np.testing.assert_array_equal(player.ids, IDS)
    assert np.abs(player.opened.frame(3).astype(int) - FRAMES[3]).mean() < 12
    assert player.opened.times[-1] == pytest.approx(1.0)
    player.opened.edit(Merge(id=2, into=3))
    np.testing.assert_array_equal(player.ids, np.where(IDS == 2, 3, IDS))
    np.testing.assert_array_equal(entitysam.view(tmp_path / "kept").ids, player.ids)  # edits are kept there


def test_the_cell_is_a_frame_with_the_page_behind_a_token(tmp_path):
    player = entitysam.view(write_result(tmp_path / "result", FRAMES, IDS))
    cell = player._repr_html_()
    assert cell.startswith("<iframe ")
    address = urlsplit(player.url)
    assert address.fragment.startswith("token=")
    assert address.fragment.replace("&", "&amp;") in cell
    connection = http.client.HTTPConnection(address.netloc, timeout=30)
    connection.request("GET", "/")
    answer = connection.getresponse()
    answer.read()
    assert "frame-ancestors http://localhost:*" in answer.getheader("content-security-policy")
    assert answer.getheader("x-frame-options") is None
    connection.request("GET", "/api/results", headers={"X-Tab": "a1" * 16})
    answer = connection.getresponse()
    answer.read()
    assert answer.status == 401


def test_maps_alone_and_what_does_not_fit(tmp_path):
    player = entitysam.view(SEGMENTS)
    np.testing.assert_array_equal(player.ids, IDS)
    with pytest.raises(InputError):
        player.opened.frame(0)
    with pytest.raises(InputError, match="only 4 frames"):
        entitysam.view(SEGMENTS, FRAMES[:4], folder=tmp_path / "short")
    with pytest.raises(InputError, match="no finished result"):
        entitysam.view(tmp_path)
