"""Error codes of the link."""

from faos_core.errors import define

JOIN_STRING_MALFORMED = define(
    "join_string.malformed",
    what="This is not a whole join string.",
    why="It begins with 'faos-join-v1.' and carries a checksum, which does not hold: some of it was lost in copying.",
    next_step="Copy the whole line that `faos join-token create` printed, or make a new one.",
)
ADDRESS_MALFORMED = define(
    "tunnel.address_malformed",
    what="{address!r} is not an address that a node could dial.",
    why="The join string carries it. It must be host:port, an IPv6 address in brackets.",
    next_step="On the control plane, make one with a right address: faos join-token create --address HOST:PORT",
)
TLS_TOO_OLD = define(
    "tls.too_old",
    what="The connection used {version}.",
    why="Only TLS 1.3 is accepted on the tunnel.",
    next_step="Look for a device between node and control plane that ends TLS, and exempt this host from it.",
)
PEER_UNKNOWN = define(
    "peer.unknown",
    what="The client showed no certificate that this service accepts.",
    why="{reason}",
    next_step="Enrol the node again: faos join STRING.",
)
FRAME_UNEXPECTED = define(
    "session.frame_unexpected",
    what="The peer sent {frame} when {expected} was due.",
    why="The session protocol allows no other frame there.",
    next_step="Check that both sides run versions that fit together: faos get nodes.",
)
HEARTBEAT_MISSED = define(
    "session.heartbeat_missed",
    what="Nothing came from the peer for {silent_s} s.",
    why="Heartbeats are due every {interval_s} s.",
    next_step="Nothing to do: the node dials again by itself.",
)
PEER_TAKES_NOTHING = define(
    "session.peer_takes_nothing",
    what="The peer took nothing of what it was sent for {timeout_s} s.",
    why="It hangs, or what lies between lets nothing through.",
    next_step="Nothing to do: the node dials again by itself.",
)
SESSION_SUPERSEDED = define(
    "session.superseded",
    what="A newer session of the same node took this one's place.",
    why="A node has one live session.",
    next_step="If two machines carry the same identity, enrol one of them anew: faos join STRING.",
)
CONTROL_PLANE_UNREACHABLE = define(
    "control_plane.unreachable",
    what="The control plane at {address} cannot be reached: {details}.",
    why="No connection came up within {timeout_s} s, or its certificate was not signed by the CA of the join string.",
    next_step="Check address, port and firewall from here, then try again. The site goes on working meanwhile.",
)
CERTIFICATE_REFUSED = define(
    "certificate.refused",
    what="The control plane answered with something that this node does not accept: {reason}.",
    why="Enrolment must end with a certificate for this node's own key and the TUF root that the join string pins.",
    next_step="Make a new join token on the control plane that you mean, and compare the fingerprint words.",
)
CERTIFICATE_NOT_KEPT = define(
    "certificate.not_kept",
    what="This node's next certificate cannot be kept: {reason}.",
    why="Its data folder cannot be written, and a certificate that a crash would lose is not used.",
    next_step="Make room on that disk, or mend it (faos doctor says which). The node tries again by itself.",
)
BLOB_UNKNOWN = define(
    "blob.unknown",
    what="No blob with digest {digest}.",
    why="It is not part of what this tenant stands at.",
    next_step="Nothing to do: the node asks again with the next offer.",
)
BLOBS_BUSY = define(
    "blob.busy",
    what="This node already fetches {most} resources at once.",
    why="Each fetch holds its answer in the control plane's memory, so their number is bounded for each node.",
    next_step="Nothing to do: the node asks again by itself.",
)
CLOCK_DIFFERS = define(
    "clock.differs",
    what="This machine's clock differs from the control plane's by more than five minutes.",
    why="One of the two is wrong. Certificates and signatures are judged by the clock; what runs goes on.",
    next_step="Compare them (date -u on both), and have them set by NTP: timedatectl set-ntp true.",
)
PORT_TAKEN = define(
    "port.taken",
    what="Cannot listen on {address}.",
    why="Another program has that port, or the address is not this machine's.",
    next_step="See who has it (ss -ltnp), and stop it; or set another {setting}.",
)
EVENTS_OVER_CREDIT = define(
    "events.over_credit",
    what="A node sent {events} events of {size_bytes} bytes at once.",
    why="At most {most_events} events of {most_bytes} bytes may be under way.",
    next_step="Check that both sides run versions that fit together: faos get nodes.",
)
EVENTS_UNANSWERED = define(
    "events.unanswered",
    what="The control plane has not said for {timeout_s} s what became of this node's events.",
    why="It is overloaded, or its database does not answer. The events are kept here.",
    next_step="Nothing to do: the node sends them again by itself.",
)
