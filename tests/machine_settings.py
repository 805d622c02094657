"""Environments of subprocesses that compute on this machine as others would: threads, instruction sets, batches."""

from __future__ import annotations

INSTRUCTION_SETS = {
    "AVX512_CORE": {"ATEN_CPU_CAPABILITY": "avx512", "ONEDNN_MAX_CPU_ISA": "AVX512_CORE"},
    "AVX2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    "SSE41": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "COMPATIBLE"},
}
"""Environments of processes that compute with fewer instructions than the machine has."""


def machine_settings(first: int, second: int, third: int) -> dict[str, dict[str, str]]:
    """Three of them by their names; each tells the code that it runs its batch, in ``PSCX_TEST_BATCH``."""
    return {
        "one thread": {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PSCX_TEST_BATCH": str(first)},
        "two threads, avx2": {
            **{"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE"},
            **INSTRUCTION_SETS["AVX2"],
            "PSCX_TEST_BATCH": str(second),
        },
        "no vectors": {
            **INSTRUCTION_SETS["SSE41"],
            **{"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PSCX_TEST_BATCH": str(third)},
        },
    }
