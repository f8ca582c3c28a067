"""The data that a cloud starts from: made once, kept as a copy for the next time."""

import shutil
from concurrent.futures import ThreadPoolExecutor

from . import config, process
from .layout import digest
from .process import run


def cache_of(layout):
    """Fresh data belongs to these pins and this package's way of making them."""
    return layout.cache / digest("requirements.txt", "constraints.txt", "config.py", "data.py", "identity.py")


def seeded(layout):
    return (layout.data / "seeded").exists()


def prepare(layout, parameters):
    """Data that is whole stays; half-made data is thrown away with whatever serves it; then the cache, or nothing."""
    config.write_all(layout, parameters)
    if seeded(layout):
        return "kept"
    process.end_all(layout)
    shutil.rmtree(layout.data, ignore_errors=True)
    cached = cache_of(layout).exists()
    if cached:
        draft = layout.live / "data.draft"
        shutil.rmtree(draft, ignore_errors=True)
        shutil.copytree(cache_of(layout), draft)
        draft.rename(layout.data)
    config.make_folders(layout)
    if not cached:
        run(
            layout,
            "mariadb-install",
            [
                "mariadb-install-db",
                "--no-defaults",
                "--user=root",
                "--skip-test-db",
                "--auth-root-authentication-method=normal",
                f"--datadir={layout.data / 'mariadb'}",
            ],
        )
    return "from the cache" if cached else "empty"


def keep(layout):
    """Declares the data whole, and copies it; its database must be at rest."""
    (layout.data / "seeded").touch()
    draft = layout.cache / "draft"
    shutil.rmtree(layout.cache, ignore_errors=True)
    draft.mkdir(parents=True)
    for name in ("mariadb", "keystone", "seeded"):
        source = layout.data / name
        if source.is_dir():
            shutil.copytree(source, draft / name)
        else:
            shutil.copy(source, draft / name)
    draft.rename(cache_of(layout))


def make_schemas(layout):
    etc, tool = layout.etc, layout.tool
    keystone = [tool("keystone-manage"), "--config-dir", etc / "keystone"]
    who = ["--keystone-user", "root", "--keystone-group", "root"]
    nova = [tool("nova-manage"), "--config-file", etc / "nova" / "nova.conf"]
    cinder = [tool("cinder-manage"), "--config-file", etc / "cinder" / "cinder.conf"]
    work = {
        "keystone": [
            [*keystone, "db_sync"],
            [*keystone, "fernet_setup", *who],
            [*keystone, "credential_setup", *who],
            [
                *keystone,
                "bootstrap",
                "--bootstrap-password",
                "minicloud",
                "--bootstrap-region-id",
                "RegionOne",
                *[
                    word
                    for interface in ("public", "internal", "admin")
                    for word in (f"--bootstrap-{interface}-url", config.url("keystone", "/v3"))
                ],
            ],
        ],
        "placement": [[tool("placement-manage"), "--config-dir", etc / "placement", "db", "sync"]],
        "glance": [[tool("glance-manage"), "--config-dir", etc / "glance", "db_sync"]],
        "neutron": [[tool("neutron-db-manage"), "--config-file", etc / "neutron" / "neutron.conf", "upgrade", "heads"]],
        "nova": [
            [*nova, "api_db", "sync"],
            [*nova, "cell_v2", "map_cell0", "--database_connection", config.database("nova_cell0")],
            [*nova, "db", "sync"],
            [*nova, "cell_v2", "create_cell", "--name", "cell1"],
        ],
        "cinder": [[*cinder, "db", "sync"]],
        "masakari": [[tool("masakari-manage"), "--config-file", etc / "masakari" / "masakari.conf", "db", "sync"]],
    }
    with ThreadPoolExecutor(len(work)) as pool:
        for done in [pool.submit(run, layout, f"schema-{name}", *commands) for name, commands in work.items()]:
            done.result()
