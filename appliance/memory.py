"""What this process does so that plaintext stays in memory, and what it cannot do (docs/threat-model.md).

Weights are decrypted into anonymous memory that is locked (never swapped), left out of core dumps, not inherited by a child,
and zeroed once the runtime has its own copy. That copy, and everything else of the process, is kept from swap and from
core dumps as far as the system lets us; ``swap_can_see_us`` says how far that is. Root on a running machine reads it all.
"""

import contextlib
import ctypes
import mmap
import resource
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_DUMPABLE = 4
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_SWAPS = Path("/proc/swaps")
LARGE_BYTES, TRIM_BYTES = 1 << 20, 16 << 20


def prepare_process() -> None:
    """Makes this process one that may hold plaintext: call it once, early.

    No core dump, and no debugger of the same user; nothing of it in swap, where that is allowed; and a large block that
    was freed goes back to the system at once, where the C library would keep it. (By default glibc raises its threshold as
    blocks are freed, after which a model stays in memory twice: measured, 2.0 × its weights against 1.0.)
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    if _may_lock_everything():
        _libc.mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT)
    if hasattr(_libc, "mallopt"):  # glibc
        _libc.mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)
        _libc.mallopt(_M_TRIM_THRESHOLD, TRIM_BYTES)


def swap_can_see_us() -> bool:
    """Whether pages of an appliance that is started like this process can reach a swap device."""
    return len(_SWAPS.read_text().splitlines()) > 1 and not _may_lock_everything()


def _may_lock_everything() -> bool:
    """With a limit, locking what is yet to come would make later allocations fail."""
    return resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] == resource.RLIM_INFINITY


def secret_buffer(size: int) -> bytearray | mmap.mmap:
    """Zeroed memory for plaintext, of exactly ``size`` bytes."""
    if not size:
        return bytearray()  # a mapping cannot be empty
    buffer = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    buffer.madvise(mmap.MADV_DONTDUMP)
    buffer.madvise(mmap.MADV_DONTFORK)
    # Beyond RLIMIT_MEMLOCK this fails; then only a machine without swap keeps the promise, and `appliance check` says so.
    _libc.mlock(_address(buffer), ctypes.c_size_t(size))
    return buffer


def wipe(buffer: bytearray | mmap.mmap) -> None:
    """Zeroes a buffer, and gives the memory back where that can be done."""
    if not buffer:
        return
    ctypes.memset(_address(buffer), 0, len(buffer))
    if isinstance(buffer, mmap.mmap):
        with contextlib.suppress(BufferError):  # somebody still holds a view: of zeros
            buffer.close()


def _address(buffer: bytearray | mmap.mmap) -> ctypes.c_void_p:
    return ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(buffer)))
