"""Lists in messages are short, and harmless to a terminal."""

import pytest

from data.options import first_few


@pytest.mark.parametrize(
    ("items", "options", "text"),
    [
        ([], {}, ""),
        (range(5), {}, "0, 1, 2, 3, 4"),
        (range(6), {}, "0, 1, 2, 3, 4 and 1 more"),
        (range(2000), {"limit": 1}, "0 and 1,999 more"),
        ("abc", {"limit": 2, "separator": "; "}, "a; b; and 1 more"),
        ("abc", {"limit": 2, "separator": "\n  "}, "a\n  b\n  and 1 more"),
        (["é", "a\nb", "\x1b[2J'"], {}, r"é, a\nb, \x1b[2J'"),
    ],
)
def test_first_few(items, options, text):
    assert first_few(iter(items), **options) == text
