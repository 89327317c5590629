"""What can go wrong with models and their files, as a person reads it."""

from faos_core.errors import define

FILE_MISSING = define(
    "model.file_missing",
    what="The model file {path} cannot be read.",
    why="site.toml names it; the system says: {reason}",
    next_step="Put the file there, or correct its path in site.toml, then restart the node.",
)
FILE_CHANGED = define(
    "model.file_changed",
    what="The model file {path} is not the one that this site approved.",
    why="Its SHA-256 is {found}; site.toml pins {expected}. It was not loaded.",
    next_step="Restore the file; or, when the change is meant, pin its new SHA-256 in site.toml and restart the node.",
)
LOAD_FAILED = define(
    "model.load_failed",
    what="The model file {path} was not loaded.",
    why="The runtime refused it: it is no model of a format that it knows, or memory is short.",
    next_step="Check that the file is a whole GGUF (models) or ONNX and tokenizer.json (embedder), and free memory.",
)
SOURCE_UNKNOWN = define(
    "model.source_unknown",
    what="Model source {source!r} is not allowed at this site.",
    why="site.toml has no entry of this name under [models].",
    next_step="Add [models.{source}] to site.toml, or name one that is there.",
)
RUNTIME_UNKNOWN = define(
    "model.runtime_unknown",
    what="Model source {source!r} asks for a runtime that this node does not have.",
    why="This version runs llama_cpp and ollama.",
    next_step="Set spec.runtime to one of these.",
)
NOT_LOADED = define(
    "model.not_loaded",
    what="The model {name!r} is not loaded.",
    why="The running revision does not declare it for this site.",
    next_step="See what runs here: faos status.",
)
CLOSED = define(
    "model.closed",
    what="The model was unloaded while it was answering.",
    why="The node is stopping, or its configuration no longer names this model.",
    next_step="Ask again.",
)
FAILED = define(
    "model.failed",
    what="The model did not answer.",
    why="Its runtime failed ({reason}).",
    next_step="Ask again; if it happens again, restart the node.",
)
BUSY = define(
    "model.busy",
    what="The model has too much waiting for it.",
    why="{waiting} turns wait already.",
    next_step="Ask again in a while, or lower limits.concurrent_runs in site.toml.",
)
CONTEXT_EXCEEDED = define(
    "model.context_exceeded",
    what="The conversation is longer than the model can read.",
    why="It has {input_tokens} tokens; the model reads {context_tokens}.",
    next_step="Raise spec.contextTokens of the Model, or put less before it (spec.topK, spec.instructions).",
)
SCHEMA_UNUSABLE = define(
    "model.schema_unusable",
    what="The model cannot be held to this JSON Schema.",
    why="It uses something that cannot be turned into a grammar.",
    next_step="Simplify the tool's input schema, or do not allow-list the tool.",
)
ENDPOINT_UNKNOWN = define(
    "model.endpoint_unknown",
    what="The endpoint {endpoint!r} is not one of this site's.",
    why="site.toml has no entry of this name under [endpoints]; only the site decides which servers are asked.",
    next_step="Add [endpoints.{endpoint}] to site.toml and restart the node, or name one that is there.",
)
NOT_PULLED = define(
    "model.not_pulled",
    what="The server at {endpoint!r} does not have the model {tag!r}.",
    why="Models are never fetched by themselves: somebody at the site says so.",
    next_step="Have the server fetch it: faos model pull {endpoint} {tag}",
)
PULL_FAILED = define(
    "model.pull_failed",
    what="The server at {endpoint!r} could not fetch the model {tag!r}.",
    why="Its registry has no such model, or the server does not reach its registry.",
    next_step="Check the tag, and try on that machine: ollama pull {tag}",
)
TAG_MALFORMED = define(
    "model.tag_malformed",
    what="{tag!r} is not the tag of a model.",
    why="Tags are a name, perhaps with a namespace before it and a version behind a colon: smollm2:135m.",
    next_step="See which tags the servers have: faos model list",
)
