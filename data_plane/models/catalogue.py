"""Which models are loaded: those of the running configuration, each file once however many specs name it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from data_plane.ceiling.models import Endpoint, ModelFile
from data_plane.egress.doors import REMOTE_MODEL
from data_plane.models import errors
from data_plane.models.interfaces import ModelRuntime
from data_plane.models.llama_cpp import LlamaCppRuntime
from data_plane.models.verification import FileVerifier
from faos.resource.v1 import resource_pb2 as resource
from faos_core.errors import InvalidError, NotFoundError

if TYPE_CHECKING:
    from data_plane.egress.http_door import HttpDoor

DEFAULT_CONTEXT_TOKENS = 4096
OpenDoor = Callable[[str, Endpoint], "HttpDoor"]


def no_door(_door: str, endpoint: Endpoint) -> NoReturn:
    """Where nothing may leave."""
    raise NotFoundError(errors.ENDPOINT_UNKNOWN, endpoint=endpoint.name)


@dataclass(frozen=True, slots=True)
class LoadKey:
    """What makes two specs share one loaded model."""

    source: str  # SHA-256 of a file, or the name of an endpoint
    tag: str  # "" for a file
    context_tokens: int


class ModelCatalogue:
    """Order: `load` the models of a new configuration beside those that run, then `retain` only the new ones.

    For one caller at a time (activation); `runtime` may be called at any time. `aclose` unloads all.
    """

    def __init__(
        self,
        files: Mapping[str, ModelFile],
        verifier: FileVerifier,
        *,
        endpoints: Mapping[str, Endpoint] | None = None,
        open_door: OpenDoor = no_door,
    ) -> None:
        """files, endpoints: of the ceiling, by name. open_door: the way to an endpoint."""
        self._files = files
        self._verifier = verifier
        self._endpoints = endpoints or {}
        self._open_door = open_door
        self._loaded: dict[LoadKey, ModelRuntime] = {}
        self._names: dict[str, LoadKey] = {}

    async def load(self, models: Mapping[str, resource.Model]) -> None:
        """Load what is not loaded yet. `runtime` still answers for the names of before, until `retain`.

        Each file's SHA-256 is checked before its first load, and again whenever the file changed.
        Raises: NotFoundError (source not in the ceiling), InvalidError (unknown runtime), IntegrityError (checksum),
            SetupError (file missing or no model; not pulled at its endpoint), UnavailableError (no answer from it),
            DeniedError (its endpoint may not be told as much). What was loaded before the error stays until `retain`.
        """
        for spec in models.values():
            key = self._key_of(spec)
            if spec.runtime == resource.MODEL_RUNTIME_OLLAMA:
                await self._load_remote(key)
            else:
                await self._load_file(self._file_of(spec), key)

    async def retain(self, models: Mapping[str, resource.Model]) -> None:
        """From now on `runtime` answers for exactly these, which `load` has loaded; unload what none of them needs.
        Turns in progress on what is unloaded end with UnavailableError."""
        self._names = {name: self._key_of(spec) for name, spec in models.items()}
        for key in self._loaded.keys() - set(self._names.values()):
            await self._loaded.pop(key).aclose()

    def runtime(self, name: str) -> ModelRuntime:
        """The loaded Model of this name. Raises NotFoundError."""
        try:
            return self._loaded[self._names[name]]
        except KeyError as error:
            raise NotFoundError(errors.NOT_LOADED, name=name) from error

    async def aclose(self) -> None:
        """Unload all. Idempotent."""
        await self.retain({})

    def _file_of(self, spec: resource.Model) -> ModelFile:
        if spec.runtime not in (resource.MODEL_RUNTIME_UNSPECIFIED, resource.MODEL_RUNTIME_LLAMA_CPP):
            raise InvalidError(errors.RUNTIME_UNKNOWN, source=spec.source)
        try:
            return self._files[spec.source]
        except KeyError as error:
            raise NotFoundError(errors.SOURCE_UNKNOWN, source=spec.source) from error

    def _endpoint_of(self, name: str) -> Endpoint:
        try:
            return self._endpoints[name]
        except KeyError as error:
            raise NotFoundError(errors.ENDPOINT_UNKNOWN, endpoint=name) from error

    def _key_of(self, spec: resource.Model) -> LoadKey:
        context_tokens = context_tokens_of(spec)
        if spec.runtime == resource.MODEL_RUNTIME_OLLAMA:
            return LoadKey(self._endpoint_of(spec.source).name, spec.model_tag, context_tokens)
        return LoadKey(self._file_of(spec).sha256.lower(), "", context_tokens)

    async def _load_file(self, file: ModelFile, key: LoadKey) -> None:
        await self._verifier.verify(file.file, file.sha256)
        if key not in self._loaded:
            self._loaded[key] = await LlamaCppRuntime.load(file.file, context_tokens=key.context_tokens)

    async def _load_remote(self, key: LoadKey) -> None:
        from data_plane.models.ollama import OllamaRuntime  # 0.5 s, which a site without endpoints need not pay

        if key not in self._loaded:
            door = self._open_door(REMOTE_MODEL.name, self._endpoint_of(key.source))
            self._loaded[key] = await OllamaRuntime.load(door, key.tag, context_tokens=key.context_tokens)


def context_tokens_of(spec: resource.Model) -> int:
    return spec.context_tokens or DEFAULT_CONTEXT_TOKENS
