"""Joining a site: the node's first message, through the gate like every later one."""

from pathlib import Path

from data_plane.ceiling.models import Ceiling
from data_plane.egress.service import open_egress
from data_plane.identity.errors import WRONG_SITE
from data_plane.identity.store import IdentityStore, Membership
from data_plane.network import Network, keep
from faos_core.errors import InvalidError
from tunnel.enrolment import enroll
from tunnel.identity import certificate_request, decode_join_string, new_key


async def join(
    data_dir: Path, join_string: str, ceiling: Ceiling, *, site: str = "", network: Network | None = None
) -> Membership:
    """Enrol this node with a join string and keep what came of it.

    site: when given, the string must be for it. network: kept too, for when the node runs.
    Raises: InvalidError (string malformed, or for another site), ConflictError (joined already; token used),
        DeniedError (token unknown, expired), UnavailableError (nobody answered), IntegrityError (the answer),
        SetupError (the proxy, or the authorities).
    """
    string = decode_join_string(join_string)
    if site and site != string.site:
        raise InvalidError(WRONG_SITE, actual=string.site, wanted=site)
    store = IdentityStore(data_dir)
    store.refuse_second()
    key = new_key()
    csr_der = certificate_request(key)
    recovery_csr_der = certificate_request(store.recovery_key())
    async with open_egress(data_dir, ceiling, network=network) as egress:
        egress.identifiers.allow(string.token_id, string.secret, csr_der, recovery_csr_der)
        enrolled = await enroll(
            string, key, csr_der, sealer=egress.gate, recovery_csr_der=recovery_csr_der, route=egress.route
        )
    if network is not None:
        keep(data_dir, network)
    return store.keep(enrolled, tuple(string.addresses))
