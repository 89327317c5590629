"""What can go wrong on the way out. Fields name files, doors and field paths, never values."""

from faos_core.errors import define

LEDGER_DAMAGED = define(
    "ledger.damaged",
    what="The egress ledger is damaged in {file} at record {index}: {problem}.",
    why="The ledger is this site's proof of what left it, so it is never repaired silently and nothing may be sent.",
    next_step="Keep a copy of the folder as evidence and see all of it with: faos ledger verify",
)
LEDGER_LOCKED = define(
    "ledger.locked",
    what="Another process writes the egress ledger in {folder}.",
    why="A ledger has one writer; a second node over the same data folder would fork the record.",
    next_step="Stop the other node (faos status shows it), or give this one its own data folder.",
)
LEDGER_UNWRITABLE = define(
    "ledger.unwritable",
    what="The egress ledger in {folder} cannot be written: {reason}.",
    why="A message that cannot be recorded first may not be sent; nothing has left.",
    next_step="Make room or repair the disk (df -h {folder}), then start the node again.",
)
LEDGER_CLOSED = define(
    "ledger.closed",
    what="The egress ledger in {folder} is closed.",
    why="The node is stopping; nothing more may be sent.",
    next_step="Start the node again.",
)
DOOR_UNKNOWN = define(
    "egress.door_unknown",
    what="Nothing may leave through the door {door!r}: there is no such door.",
    why="Only doors of the registry, within the site's ceiling, lead out of the node.",
    next_step="Report this as a defect: data_plane/egress/doors.py lists the doors.",
)
FIELD_UNCLASSIFIED = define(
    "egress.field_unclassified",
    what="{message}.{field} may not leave through the door {door!r}: its schema gives it no data class that fits.",
    why="Only fields with a data class leave; text is never OPERATIONAL.",
    next_step="Report this as a defect; nothing was sent.",
)
ABOVE_CEILING = define(
    "egress.above_ceiling",
    what="{message}.{field} is {data_class}, above the ceiling of the door {door!r} ({ceiling}).",
    why="The site's ceiling says what may leave at most.",
    next_step="If the site wants this to leave, change [doors] in site.toml at the site; nothing was sent.",
)
IDENTIFIER_UNKNOWN = define(
    "egress.identifier_unknown",
    what="{message}.{field} carries a value, for the door {door}, that is no identifier known to this node.",
    why="Only names of the running revision, ids that this node made, and what the control plane sent may leave.",
    next_step="Report this as a defect; nothing was sent.",
)
ENDPOINT_UNREACHABLE = define(
    "egress.endpoint_unreachable",
    what="The endpoint {endpoint!r} of site.toml did not answer ({reason}).",
    why="There was no connection, it broke, or its certificate does not hold under the authorities named there.",
    next_step="Check that it runs, and url and ca_file of [endpoints.{endpoint}] in site.toml.",
)
ENDPOINT_REDIRECTS = define(
    "egress.endpoint_redirects",
    what="The endpoint {endpoint!r} of site.toml sends us elsewhere (HTTP {status}).",
    why="Redirects are not followed: only the site says where anything goes.",
    next_step="Put the final address at url of [endpoints.{endpoint}] in site.toml.",
)
ENDPOINT_ELSEWHERE = define(
    "egress.endpoint_elsewhere",
    what="A request through the door {door!r} was not for the endpoint {endpoint!r}.",
    why="Only URLs under the one that site.toml names may be asked; nothing was sent.",
    next_step="Report this as a defect; nothing was sent.",
)
PROXY_URL_MALFORMED = define(
    "proxy.url_malformed",
    what="The proxy {proxy!r} is not the URL of a proxy.",
    why="It must be http:// or https://, a host, and perhaps a port and user:password@; nothing else.",
    next_step="Correct `proxy` in node.toml (or FAOS_NODE_PROXY, or --proxy), e.g. http://proxy.example:3128",
)
PROXY_CREDENTIALS_UNUSABLE = define(
    "proxy.credentials_unusable",
    what="The proxy credentials in {file} cannot be used: {reason}.",
    why="The file must be readable by the node's user, and hold one line: user:password.",
    next_step="Look at it: ls -l {file}",
)
PROXY_UNREACHABLE = define(
    "proxy.unreachable",
    what="The proxy {proxy} does not answer ({reason}).",
    why="The node is told to reach {destination} through it, and never goes around it.",
    next_step="Check `proxy` in node.toml, and that the proxy runs: faos doctor",
)
PROXY_REFUSED = define(
    "proxy.refused",
    what="The proxy {proxy} does not let this node through to {destination} (HTTP {status}).",
    why="{reason}",
    next_step="Ask those who run the proxy to allow CONNECT to {destination}; see all of it with: faos doctor",
)
PROXY_WANTS_CREDENTIALS = define(
    "proxy.wants_credentials",
    what="The proxy {proxy} wants to know who asks (HTTP 407), and {shown}.",
    why="The node can say user and password (Basic); it offers {offered}.",
    next_step="Set `proxy_credentials_file` in node.toml to a file of one line, user:password; then: faos doctor",
)
PROXY_UNTRUSTED = define(
    "proxy.untrusted",
    what="The proxy {proxy} shows a certificate that does not hold: {reason}.",
    why="It leads to none of the system's authorities and none in `ca_dir`, or is for another name.",
    next_step="Put the PEM file of the proxy's authority into the folder `ca_dir` of node.toml; then: faos doctor",
)
PROXY_NOT_HTTP = define(
    "proxy.not_http",
    what="What answers at {proxy} is no HTTP proxy.",
    why="It was asked to CONNECT, and did not answer in HTTP.",
    next_step="Check `proxy` in node.toml; a proxy that is itself spoken to in TLS is written https://",
)
RELAY_FAILED = define(
    "proxy.relay_failed",
    what="The socket {path}, through which this node hands its connections to the proxy, cannot be made: {reason}.",
    why="It lies in the node's data folder; a path may have 107 bytes, and the file system must know sockets.",
    next_step="Choose a shorter data folder on a local file system.",
)
CA_DIR_UNUSABLE = define(
    "ca_dir.unusable",
    what="The folder of authorities {folder} cannot be used: {reason}.",
    why="`ca_dir` must be a folder with at least one PEM file, its name ending in .pem or .crt.",
    next_step="Look at it: ls -l {folder}",
)
CA_FILE_UNREADABLE = define(
    "ca_dir.file_unreadable",
    what="The authority in {file} cannot be read: {reason}.",
    why="Every .pem and .crt file in `ca_dir` must be one or more BEGIN CERTIFICATE blocks.",
    next_step="Replace it, or move it out of the folder; a DER file becomes PEM with: openssl x509 -inform der -in …",
)
CA_EXPIRED = define(
    "ca_dir.expired",
    what="An authority in `ca_dir` has expired: {subject}, in {file}.",
    why="It held until {until}; nothing that it issued is accepted any more.",
    next_step="Ask the network team for its successor, put that file beside it, and restart the node.",
)
TLS_INTERCEPTED = define(
    "tls.intercepted",
    what="Something between this machine and {address} answers TLS in its place: it showed a certificate issued by "
    "{issuer!r}.",
    why="The tunnel accepts only the CA that came in the join string, so that nobody in between can read or steer it.",
    next_step="Ask the network team to exempt {address} from TLS inspection, then look again: faos doctor",
)
TLS_OTHER_CONTROL_PLANE = define(
    "tls.other_control_plane",
    what="A control plane answers at {address}, but not the one that this node joined.",
    why="Its certificate is by a CA of the same name with another key: it was made anew, or the address is another's.",
    next_step="Check the address. If the control plane was made anew, join it: faos join --data NEW_DIR STRING",
)
TLS_NOT_SPOKEN = define(
    "tls.not_spoken",
    what="Something takes the connection to {address} and does not speak TLS ({reason}).",
    why="A firewall, a captive portal or another service stands there.",
    next_step="Check the address and port, and ask the network team what answers there: faos doctor",
)
CLOCK_OFF = define(
    "clock.off",
    what="By this machine's clock ({now}) the certificate of {address} does not hold.",
    why="It holds from {begins} to {ends}, and is by the right CA: most likely this clock is wrong.",
    next_step="Set the clock (timedatectl set-ntp true), then look again: faos doctor",
)
PROXY_MISSING = define(
    "proxy.missing",
    what="The endpoint {endpoint!r} of site.toml is to be reached through the proxy, and the node has none.",
    why="It says through_proxy = true; going around the proxy is not for the node to decide.",
    next_step="Set `proxy` in node.toml (or faos join --proxy URL), or take through_proxy out of site.toml.",
)
