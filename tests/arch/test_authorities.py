"""Every door takes whom it believes from one place, so that one setting of the site reaches all of them."""

import ast

import pytest

from tests.arch.sources import Source, dotted, product

PLACE = "data_plane.egress.authorities"
# Modules that say themselves whom they believe, and why.
OTHERS: dict[str, str] = {
    "control_plane.telemetry.collector": "the control plane's own collector: no door, it stands at no site",
    "tunnel.tls": "the tunnel believes the CA of the join string alone: no authority of a network can stand in between",
    "data_plane.ceiling.load": "reads ca_file to see at start whether it can be used; it connects to nothing",
    "faos_cli.admin_client": "the operator's own calls of the admin API, with the CA of the context",
}
MAKERS = (
    "ssl.create_default_context",
    "ssl._create_unverified_context",
    "ssl.wrap_socket",
    "grpc.ssl_channel_credentials",
    "grpc.ssl_server_credentials",
    "httpx.create_ssl_context",
    "certifi.where",
)
LOADERS = ("load_verify_locations", "load_default_certs", "set_default_verify_paths")
ARGUMENTS = ("certificate_file", "verify", "cafile", "ca_certs")  # of clients that make a context by themselves


def believers(source: Source) -> list[str]:
    """Where this source says whom to believe."""
    found = []
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute | ast.Name) and (name := dotted(node, source.imported_names)) in MAKERS:
            found.append(f"{node.lineno}: {name}")
        elif isinstance(node, ast.Attribute) and node.attr in LOADERS:
            found.append(f"{node.lineno}: {node.attr}")
        elif isinstance(node, ast.Call):
            if dotted(node.func, source.imported_names) == "ssl.SSLContext":  # its name alone is a type
                found.append(f"{node.lineno}: ssl.SSLContext")
            found += [f"{node.lineno}: {each.arg}=" for each in node.keywords if each.arg in ARGUMENTS]
    return found


def test_every_door_believes_whom_the_site_believes() -> None:
    """A door with authorities of its own works in the laboratory, and behind no company's firewall."""
    found = {source.module: places for source in product() if (places := believers(source))}

    assert found.pop(PLACE)
    assert {module: places for module, places in found.items() if module not in OTHERS} == {}, (
        f"take the TLS context from {PLACE}"
    )
    assert found.keys() == OTHERS.keys(), "a stale reason is a hole"


@pytest.mark.parametrize(
    "planted",
    [
        "import ssl\nssl.create_default_context()",
        "from ssl import create_default_context as f\nf()",
        "import ssl\nssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)",
        "context.load_verify_locations('x')",
        "import grpc\ngrpc.ssl_channel_credentials(b'')",
        "Exporter(certificate_file='x')",
        "Client(verify=False)",
        "import certifi\ncertifi.where()",
    ],
)
def test_scanner_catches_a_planted_belief(planted: str) -> None:
    """A scanner that finds nothing proves nothing."""
    assert believers(Source("planted", planted))
