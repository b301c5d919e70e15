from data.synthetic import make_flow, make_video
from data.video import open_frames


def test_video_has_the_frames_asked_for_and_the_disc_moves(tmp_path) -> None:
    source = open_frames(make_video(tmp_path / "clip.mp4", 9))
    assert len(source) == 9
    first, last = source.read([0, 8])
    assert first.shape == (3, 256, 456)
    yellow = (250, 200, 40)
    for frame, centre in ((first, 50), (last, 406)):
        for channel, value in zip(frame[:, 128, centre].tolist(), yellow, strict=True):
            assert abs(channel - value) < 30


def test_flow_says_that_only_the_disc_moves_to_the_right(tmp_path) -> None:
    source = open_frames(make_flow(tmp_path, 3), "Flow")
    assert len(source) == 3
    flow = source.read([0])[0]
    assert flow[0, 128, 50] > 150
    assert abs(int(flow[0, 128, 400]) - 128) < 4
    assert abs(int(flow[1].float().mean()) - 128) < 2
