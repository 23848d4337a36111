"""Owns the question to this machine's `nvidia-smi`: which cards, which driver.

Must not know what follows from the answer; `examination.named_cards` reads it. No root, no library of NVIDIA's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cuda_matrix.examination import SMI_FIELDS

if TYPE_CHECKING:
    from cuda_matrix.adapters.programs import Programs
    from cuda_matrix.examination import ProgramAnswer


def ask(programs: Programs) -> ProgramAnswer:
    """The query's answer, never the banner: the banner's layout changes, and its CUDA is not what runs."""
    answer = _query(programs, SMI_FIELDS)
    if answer.code and "compute_cap" in answer.out + answer.err:
        # Known since driver 510 or so; an older one refuses the whole query because of it.
        return _query(programs, SMI_FIELDS[:-1])
    return answer


def _query(programs: Programs, fields: tuple[str, ...]) -> ProgramAnswer:
    return programs.ask("nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader")
