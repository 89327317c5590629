"""Resources for tests: the quickstart's, as the command line reads them."""

from pathlib import Path

from faos.resource.v1.resource_pb2 import MODEL_RUNTIME_LLAMA_CPP, Resource

QUICKSTART = Path(__file__).resolve().parents[2] / "examples" / "quickstart"
MODEL = Resource()
MODEL.metadata.name = "smollm2"
MODEL.model.source = "smollm2"
MODEL.model.runtime = MODEL_RUNTIME_LLAMA_CPP
