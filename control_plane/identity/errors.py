"""Error codes of identity: join tokens, enrolment, the certificate authority."""

from faos_core.errors import define

MAKE_ANOTHER = "Make a new one on the control plane: faos join-token create --site SITE"

ONE_OF_TWO = (
    "Stop the copy, then: faos node readmit {node}. If you cannot find it: faos node evict {node}, and let your "
    "machine join again."
)

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
ADDRESS_MALFORMED = define(
    "join_token.address_malformed",
    what="{address!r} is not an address that a node could dial.",
    why="It must be host:port, an IPv6 address in brackets: cloud.example:7443, [2001:db8::7]:7443.",
    next_step="Correct --address.",
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
NODE_UNKNOWN_HERE = define(
    "node.not_here",
    what="Tenant {tenant!r} has no node {node!r}.",
    why="It never enrolled here, was evicted, or its name is misspelt.",
    next_step="See which there are: faos get nodes",
)
NODE_REVOKED = define(
    "node.revoked",
    what="Node {node} is revoked.",
    why="An operator banned it: its certificates and keys open nothing any more.",
    next_step="See who and why: faos describe node {node}. To let the machine join again: faos node evict {node}",
)
NODE_QUARANTINED = define(
    "node.quarantined",
    what="Node {node} is in quarantine.",
    why="Its recovery key was used twice with one counter: two machines hold the same identity, and both are refused.",
    next_step=ONE_OF_TWO,
)
RECOVERY_REUSED = define(
    "node.recovery_reused",
    what="The recovery key of node {node} was used with a counter that was seen before.",
    why="The node was copied, or restored from a backup. Both copies are refused from now on.",
    next_step=ONE_OF_TWO,
)
NODE_CLONED = define(
    "node.cloned",
    what="Two machines say that they are node {node}.",
    why="Its count of starts went back, or two starts claim the same count: its data folder was copied or restored.",
    next_step="Stop one of them, then: faos node readmit {node}. If you do not know it: faos node revoke {node}",
)
LEDGER_WENT_BACK = define(
    "node.ledger_went_back",
    what="Node {node} started with a ledger that lacks entries which it had shown before.",
    why="Its data folder was restored from a backup, or somebody cut or rewrote the record of what left the site.",
    next_step="Ask the site what happened. When it put a backup back: faos node readmit {node}",
)
NODE_BANNED = define(
    "node.banned",
    what="Node {node} is revoked, and is not readmitted.",
    why="A ban is for good: whoever took the machine may have taken its keys.",
    next_step="To let the machine join again, with new keys: faos node evict {node}",
)
REASON_TOO_LONG = define(
    "node.reason_too_long",
    what="The reason is too long.",
    why="At most {most} characters are kept.",
    next_step="Say it in fewer words: --reason TEXT",
)
