"""What does a seccomp program answer? A classic-BPF interpreter, written from linux/filter.h."""

from __future__ import annotations

import struct

_WORD = 0xFFFF_FFFF


def verdict(program: bytes, *, number: int, architecture: int, arguments: tuple[int, ...] = ()) -> int:
    """The SECCOMP_RET_* word of `program` for one call; `arguments` are padded with zeros."""
    padded = (*arguments, *(0,) * (6 - len(arguments)))
    data = struct.pack("=IIQ6Q", number & _WORD, architecture, 0, *padded)
    code = [struct.unpack_from("=HBBI", program, at) for at in range(0, len(program), 8)]
    accumulator = at = 0
    while True:
        operation, true, false, k = code[at]
        at += 1
        if operation == 0x20:  # BPF_LD | BPF_W | BPF_ABS
            accumulator = struct.unpack_from("=I", data, k)[0]
        elif operation == 0x54:  # BPF_ALU | BPF_AND | BPF_K
            accumulator &= k
        elif operation == 0x05:  # BPF_JMP | BPF_JA
            at += k
        elif operation in _JUMPS:
            at += true if _JUMPS[operation](accumulator, k) else false
        elif operation == 0x06:  # BPF_RET | BPF_K
            return k
        else:
            raise ValueError(f"instruction {operation:#x}")


_JUMPS = {
    0x15: lambda a, k: a == k,  # JEQ
    0x25: lambda a, k: a > k,  # JGT
    0x35: lambda a, k: a >= k,  # JGE
    0x45: lambda a, k: bool(a & k),  # JSET
}
