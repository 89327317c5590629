"""Error codes of identity: join tokens, enrolment, the certificate authority."""

from faos_core.errors import define

MAKE_ANOTHER = "Make a new one on the control plane: faos join-token create --site SITE"

TOKEN_UNKNOWN = define(
    "join_token.unknown",
    what="The join token is not one of this control plane's.",
    why="Its id or its secret is wrong, or it was made by another control plane.",
    next_step=MAKE_ANOTHER,
)
TOKEN_EXPIRED = define(
    "join_token.expired",
    what="The join token expired at {expired_at}.",
    why="Join tokens live for a short time, so that a lost one opens nothing.",
    next_step=MAKE_ANOTHER,
)
TOKEN_USED = define(
    "join_token.used",
    what="The join token was used already, by node {node}, at {used_at}.",
    why="A join token enrols one node. If that node is not yours, somebody else had the string.",
    next_step=MAKE_ANOTHER + ". If you do not know that node, look at it: faos describe node {node}",
)
REQUEST_MALFORMED = define(
    "enrolment.request_malformed",
    what="The certificate request cannot be used.",
    why="It must be PKCS#10 for a P-256 key, signed by that key.",
    next_step="Run the same version of faos on the node as on the control plane, and join again.",
)
TTL_TOO_LONG = define(
    "join_token.ttl_too_long",
    what="{ttl_s} s is too long for a join token.",
    why="At most {most_s} s (7 days): the longer it lives, the more time a lost one has.",
    next_step="Give a shorter time: --ttl 1h",
)
CA_INCOMPLETE = define(
    "ca.incomplete",
    what="The certificate authority in {directory} is incomplete or unreadable.",
    why="Its key and its certificate belong together; every node trusts that pair.",
    next_step="Restore both files from a backup. Deleting them makes a new authority, and every node must join again.",
)
NODE_UNKNOWN = define(
    "node.unknown",
    what="This certificate is not the one that node {node} was last given.",
    why="The node was removed, or enrolled anew since.",
    next_step="Enrol the node again: faos join STRING",
)
