"""Valid files damaged at random: a picture or one clear error, whatever they hold.

SRCLI_FUZZ_EXAMPLES is how many files are tried; other than by default they then differ
from run to run (docs/contributing.md).
"""

import os

import hypothesis.strategies as st
from hypothesis import HealthCheck, given, settings
from mutations import EXTREMES, NAMES, fix_checksums, frame_of, look_into, put_number
from sample_files import sample

CHOSEN = os.environ.get("SRCLI_FUZZ_EXAMPLES")
EXAMPLES = int(CHOSEN or 1_500)

# Headers are short and at the beginning, so half of the damage is done there.
places = st.one_of(st.integers(0, 400), st.integers(0, 20_000))
damages = st.one_of(
    st.tuples(st.just("set"), places, st.integers(0, 255)),
    st.tuples(st.just("flip"), places, st.integers(0, 7)),
    st.tuples(
        st.just("number"),
        places,
        st.sampled_from(EXTREMES),
        st.sampled_from((2, 4)),
        st.sampled_from(("little", "big")),
    ),
    st.tuples(st.just("delete"), places, st.integers(1, 64)),
    st.tuples(st.just("repeat"), places, st.integers(1, 64)),
    st.tuples(st.just("cut"), places),
    st.tuples(st.just("splice"), places, st.sampled_from(NAMES)),
)


def damage(data, kind, place, *rest):
    """A file with one thing wrong."""
    place %= len(data) + 1
    head, tail = data[:place], data[place:]
    if kind == "set":
        return head + bytes(rest) + tail[1:]
    if kind == "flip":
        return head + bytes(byte ^ (1 << rest[0]) for byte in tail[:1]) + tail[1:]
    if kind == "number":
        number, width, order = rest
        return put_number(data, place, number & (256**width - 1), width, order)
    if kind == "delete":
        return head + tail[rest[0] :]
    if kind == "repeat":
        return head + tail[: rest[0]] + tail
    if kind == "splice":
        return head + sample(rest[0])[place:]
    return head


@settings(
    max_examples=EXAMPLES,
    derandomize=CHOSEN is None,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(
    name=st.sampled_from(NAMES),
    wrong=st.lists(damages, min_size=1, max_size=4),
    sums=st.booleans(),
)
def test_damaged_files_are_read_or_refused(name, wrong, sums):
    data = sample(name)
    for what in wrong:
        data = damage(data, *what)
    if sums and "png" in name:  # so that a decoder sees the damage
        data = fix_checksums(data)
    look_into(data, name, frame_of(name))
