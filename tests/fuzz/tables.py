"""Odd fields for tables in text."""

from __future__ import annotations

from hypothesis import strategies as st

odd_field = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        [
            "", "-1", "-2", "1e3", "nan", "inf", "-inf", "1e308", "1e-320", "1e-400", "0." + "0" * 400 + "1",
            "1" * 400, "9" * 5000, str(2**63), str(2**63 - 1), "1_0", "१", "0x10", "1.0000000000000000000001",
            "999999999 days, 0:00:01", "9" * 400 + ":00:00", "\x1b[31m", "\x0c", "\u2028", "0.1" * 3, "5e-324",
        ]
    ),
)  # fmt: skip


@st.composite
def odd_lines(draw: st.DrawFn, valid: bytes, gap: str) -> bytes:
    """A table in text with one to three fields replaced."""
    rows = [line.split(gap) for line in valid.decode().splitlines()]
    for _ in range(draw(st.integers(1, 3))):
        row = draw(st.sampled_from(rows))
        at = draw(st.integers(0, len(row)))
        row[at : at + draw(st.integers(0, 1))] = [draw(odd_field)]
    end = draw(st.sampled_from(["\n", "\n", "\n", "\r\n", "\r", "\n\n"]))
    text = end.join(gap.join(row) for row in rows) + draw(st.sampled_from(["\n", ""]))
    mark = draw(st.sampled_from([b"", b"", b"", b"\xef\xbb\xbf"]))
    return mark + text.encode("utf-8", "surrogatepass")
