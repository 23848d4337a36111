"""Owns the JSON Schemas that are published: of one configuration file and of a result.

Must not repeat what the types say: everything is generated from them.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from cuda_matrix.config import Config
from cuda_matrix.result import CellResult

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


class _AsWritten(GenerateJsonSchema):
    """Defaults in the form that an author writes: a section that is left out is an empty one."""

    def encode_default(self, dft: Any) -> Any:
        """A default value as JSON."""
        return {} if isinstance(dft, BaseModel) else super().encode_default(dft)


def config_schema() -> dict[str, Any]:
    """Schema of one file. No section is required: an editor checks each file of `matrix/` by itself."""
    schema = Config.model_json_schema(schema_generator=_AsWritten)
    schema.pop("required", None)
    text = "One file of matrix/, or cuda-matrix.yml. All files together need `version`, `images` and `runners`."
    return {"$schema": _DIALECT, **schema, "title": "cuda-matrix configuration", "description": text}


def result_schema() -> dict[str, Any]:
    """Schema of one result file."""
    schema = CellResult.model_json_schema(mode="serialization")
    text = "Everything that one attempt at one cell has shown (results/<cell>.json)."
    return {"$schema": _DIALECT, **schema, "title": "cuda-matrix result", "description": text}
