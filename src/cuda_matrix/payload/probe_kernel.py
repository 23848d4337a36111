"""Owns one small kernel in PTX, and how its result is verified: proof that a card computes, without any CUDA software.

The PTX is of 2017 (ISA 6.0, sm_50), which every driver since CUDA 9 compiles for every card since: ptxas of CUDA 12.1
takes it for sm_50 to sm_90, and that of 13.5 for sm_75 to sm_120. Must not know what a check is.
"""

from __future__ import annotations

import time

COUNT = 40037  # elements: many blocks, and no multiple of a block, so that the kernel's own bound is tested
GUARD = 256  # elements behind, which must stay as they are
THREADS = 256  # a block
_UNTOUCHED = 0xDEADBEEF
_FACTOR = 1664525  # of the linear congruential generator of Numerical Recipes

# words[i] = in[i] * 1664525 + i (32 bits); floats[i] = (words[i] >> 12) * 0.5 + 0.25, which is exact: 22 bits
PTX = """.version 6.0
.target sm_50
.address_size 64
.visible .entry cm_probe(.param .u64 words_at, .param .u64 floats_at, .param .u64 in_at, .param .u32 count)
{
    .reg .pred %past;
    .reg .u32 %block, %size, %thread, %i, %n, %x, %k;
    .reg .u64 %words, %floats, %in, %offset;
    .reg .f32 %f;
    mov.u32 %block, %ctaid.x;
    mov.u32 %size, %ntid.x;
    mov.u32 %thread, %tid.x;
    mad.lo.u32 %i, %block, %size, %thread;
    ld.param.u32 %n, [count];
    setp.ge.u32 %past, %i, %n;
    @%past bra done;
    ld.param.u64 %words, [words_at];
    ld.param.u64 %floats, [floats_at];
    ld.param.u64 %in, [in_at];
    cvta.to.global.u64 %words, %words;
    cvta.to.global.u64 %floats, %floats;
    cvta.to.global.u64 %in, %in;
    mul.wide.u32 %offset, %i, 4;
    add.u64 %words, %words, %offset;
    add.u64 %floats, %floats, %offset;
    add.u64 %in, %in, %offset;
    ld.global.u32 %x, [%in];
    mul.lo.u32 %x, %x, 1664525;
    add.u32 %x, %x, %i;
    st.global.u32 [%words], %x;
    shr.u32 %k, %x, 12;
    cvt.rn.f32.u32 %f, %k;
    fma.rn.f32 %f, %f, 0f3F000000, 0f3E800000;
    st.global.f32 [%floats], %f;
done:
    ret;
}
"""


def run(driver, session) -> dict:
    """Compile, launch and verify on the session's card: {mismatches, first_wrong, overrun, load_s, launch_s}."""
    import ctypes

    whole = COUNT + GUARD
    given = (ctypes.c_uint32 * whole)(*[(index * 2654435761) & 0xFFFFFFFF for index in range(whole)])
    words = (ctypes.c_uint32 * whole)(*([_UNTOUCHED] * whole))
    floats = (ctypes.c_float * whole)(*([-1.0] * whole))
    started = time.perf_counter()
    kernel = session.function(PTX, "cm_probe")
    loaded = time.perf_counter()
    at = [session.upload(data) for data in (words, floats, given)]
    before = time.perf_counter()
    session.launch(kernel, -(-COUNT // THREADS), THREADS, [*at, ctypes.c_uint32(COUNT)])
    ended = time.perf_counter()
    session.download(words, at[0])
    session.download(floats, at[1])
    driver.call("cuMemFree_v2", at[2])
    seen = compare(given, words, floats)
    seen.update(load_s=round(loaded - started, 4), launch_s=round(ended - before, 6))
    return seen


def compare(given, words, floats) -> dict:
    """Every element against the same arithmetic in Python; `overrun` counts what was written behind the end."""
    wrong, first = 0, None
    for index in range(COUNT):
        expected = (given[index] * _FACTOR + index) & 0xFFFFFFFF
        if words[index] == expected and floats[index] == (expected >> 12) * 0.5 + 0.25:
            continue
        if first is None:
            wanted = (expected >> 12) * 0.5 + 0.25
            first = f"element {index}: {words[index]} and {floats[index]}, not {expected} and {wanted}"
        wrong += 1
    behind = range(COUNT, COUNT + GUARD)
    overrun = sum(1 for index in behind if words[index] != _UNTOUCHED or floats[index] != -1.0)
    return {"mismatches": wrong, "first_wrong": first, "overrun": overrun}
