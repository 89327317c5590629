"""What a NACK means and what to do next: one text for each code, because nodes send no words."""

from collections.abc import Mapping
from types import MappingProxyType

from faos.tunnel.v1.tunnel_pb2 import NackCode

UNKNOWN = (
    "The node gave a reason that this control plane does not know: it is newer. "
    "Upgrade the control plane, then look again."
)

NACK_TEXTS: Mapping[NackCode.ValueType, str] = MappingProxyType(
    {
        NackCode.NACK_CODE_UNSPECIFIED: "The node gave no reason. Look into its log, at the site: journalctl -u faos.",
        NackCode.NACK_CODE_SIGNATURE_INVALID: (
            "The signature does not lead to the TUF root that the site pinned when it joined. The site runs what it "
            "ran. Check who signed this revision; if the publisher's keys were replaced, publish the new root first."
        ),
        NackCode.NACK_CODE_METADATA_EXPIRED: (
            "The signed metadata had expired when the node looked. What runs goes on. "
            "Check both clocks, and that the control plane can sign again."
        ),
        NackCode.NACK_CODE_ROLLBACK: (
            "The revision, or its metadata, is older than what the node has verified before. To return to old content, "
            "apply it again: it becomes a new, higher revision. If the control plane was restored from a backup, "
            "apply until its revisions are above the node's."
        ),
        NackCode.NACK_CODE_DIGEST_MISMATCH: (
            "Bytes did not have the digest that the signed manifest names: damaged in storage or on the way. "
            "Check the control plane's disk, then apply the resource again."
        ),
        NackCode.NACK_CODE_WRONG_TENANT: (
            "The manifest names another tenant than the node joined. Check which join token the node used."
        ),
        NackCode.NACK_CODE_QUARANTINED: (
            "The node has tried exactly this content before and gave it up; it will not try again. "
            "Correct the cause that its history shows, and apply changed content."
        ),
        NackCode.NACK_CODE_UNPARSABLE: (
            "The node could not read the resource. Its version may be too old for it: compare with "
            "'faos get nodes', and upgrade the node."
        ),
        NackCode.NACK_CODE_KIND_UNKNOWN: (
            "The node's version does not know this kind. Upgrade the node, or keep the resource away from its site "
            "with metadata.sites."
        ),
        NackCode.NACK_CODE_SPEC_INVALID: ("The node refused the value of this field. Correct it and apply again."),
        NackCode.NACK_CODE_REFERENCE_MISSING: (
            "This field names a resource that the site does not get. Apply that resource too, or widen its "
            "metadata.sites until it selects the site."
        ),
        NackCode.NACK_CODE_TOO_LARGE: (
            "The revision is larger than the node takes. Split large resources, or select fewer for this site."
        ),
        NackCode.NACK_CODE_BLOB_MISSING: (
            "The node could not fetch the body of a resource. It asks again with the next offer; if this stays, "
            "apply the resource again."
        ),
        NackCode.NACK_CODE_NAME_NOT_IN_CEILING: (
            "This field refers to a name that the site's own site.toml does not define. Only the site can allow it: "
            "ask its operator to run 'faos site allow' there, or use a name that is defined."
        ),
        NackCode.NACK_CODE_ABOVE_CEILING: (
            "This field asks for more than the site's own site.toml allows. Ask for less, or ask the site's operator "
            "to raise the limit."
        ),
        NackCode.NACK_CODE_APPROVAL_REQUIRED: (
            "The site takes nothing new of this kind, or no agent that may do more than before, without its own yes. "
            "Ask the site's operator to take the kind out of approval_required in site.toml ([] admits all) and to "
            "start the node again; then apply changed content."
        ),
        NackCode.NACK_CODE_MODEL_CHECKSUM: (
            "The model's file at the site does not have the SHA-256 that site.toml names, so it was not loaded. "
            "Ask the site's operator to fetch the file again, or to correct the digest."
        ),
        NackCode.NACK_CODE_MODEL_LOAD_FAILED: (
            "The model's file is whole but did not load, most often for lack of memory. "
            "Choose a smaller model or a smaller spec.contextTokens; the node's log says more."
        ),
        NackCode.NACK_CODE_TOOL_SERVER_FAILED: (
            "The tool server did not start or did not answer. Ask the site's operator to run its command by hand, "
            "as site.toml has it."
        ),
        NackCode.NACK_CODE_TOOL_NOT_OFFERED: (
            "spec.allowedTools names a tool that the server does not offer. Correct the name, or install the version "
            "of the server that has it."
        ),
        NackCode.NACK_CODE_INGEST_FAILED: (
            "The documents of the knowledge base could not be read or indexed. Ask the site's operator to check that "
            "the folder in site.toml exists and that FAOS may read it."
        ),
        NackCode.NACK_CODE_SANDBOX_UNAVAILABLE: (
            "The site's machine cannot run programs in a sandbox, and FAOS runs none without. "
            "Ask the site's operator to install bubblewrap and to allow user namespaces."
        ),
        NackCode.NACK_CODE_CRASHED: (
            "The node's process ended twice while it activated or watched this, so it went back to what ran before and "
            "will not try this content again. Most often a model needs more memory than the machine has. Ask the "
            "site's operator for the node's log and 'journalctl -k' of that time; apply changed content."
        ),
        NackCode.NACK_CODE_DEADLINE: (
            "A phase took longer than it may, and the node went back to what ran before. Look at the load of the "
            "site's machine, then apply changed content."
        ),
        NackCode.NACK_CODE_SUPERSEDED: (
            "A newer revision arrived before this one was done. Nothing to do: look at the newer one."
        ),
        NackCode.NACK_CODE_STORAGE_FAILED: (
            "The node could not write to its disk. Ask the site's operator to look at free space and at the disk "
            "itself: df -h."
        ),
        NackCode.NACK_CODE_INTERNAL: (
            "A defect in the node; it went back to what ran before. Please report it with the node's log of that time."
        ),
    }
)


def explanation_of(code: int) -> str:
    """Never empty, also for a number that this version does not know."""
    return NACK_TEXTS.get(NackCode.ValueType(code), UNKNOWN)
