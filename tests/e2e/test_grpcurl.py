"""The admin API as a stranger's tool sees it."""

import asyncio
from pathlib import Path

import pytest

from tests.system.harness import running_control_plane
from tunnel.identity import SERVER_NAME

pytestmark = pytest.mark.needs("grpcurl")


async def grpcurl(*arguments: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        "grpcurl", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await process.communicate()
    return process.returncode or 0, said.decode()


async def test_reflection_lists_and_describes_the_admin_api(tmp_path: Path) -> None:
    """An operator with grpcurl and a token needs none of our files to find out what there is."""
    async with running_control_plane(tmp_path) as plane:
        token = (tmp_path / "admin.token").read_text().strip()
        who = ("-cacert", str(tmp_path / "ca" / "ca.pem"), "-authority", SERVER_NAME)
        who += ("-H", f"authorization: Bearer {token}")
        address = f"127.0.0.1:{plane.endpoints.admin_port}"

        code, services = await grpcurl(*who, address, "list")
        _, described = await grpcurl(*who, address, "describe", "faos.admin.v1.ResourceService")
        _, tenants = await grpcurl(*who, "-d", "{}", address, "faos.admin.v1.TenantService/ListTenants")

    assert code == 0, services
    wanted = {"faos.admin.v1." + name for name in ("TenantService", "NodeService", "ResourceService", "AuditService")}
    assert wanted <= set(services.split())
    assert "grpc.health.v1.Health" in services
    assert "rpc ApplyResources" in described
    assert tenants.strip() == "{}"


async def test_no_token_no_answer(tmp_path: Path) -> None:
    """Being able to list the API is not being able to use it."""
    async with running_control_plane(tmp_path) as plane:
        who = ("-cacert", str(tmp_path / "ca" / "ca.pem"), "-authority", SERVER_NAME)
        address = f"127.0.0.1:{plane.endpoints.admin_port}"
        protos = (
            "-import-path",
            str(Path(__file__).resolve().parents[2] / "proto"),
            "-proto",
            "faos/admin/v1/admin.proto",
        )

        code, said = await grpcurl(*who, *protos, "-d", "{}", address, "faos.admin.v1.TenantService/ListTenants")

    assert code != 0
    assert "Unauthenticated" in said
