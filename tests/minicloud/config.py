"""Writes every configuration file of the cloud."""

import json
import shutil

from .layout import CONTROL, NETWORKS, PASSWORD, PORTS, REGION, replace

ADDRESS = f"{NETWORKS['mgmt']}.{CONTROL}"


def url(service, path=""):
    return f"http://{ADDRESS}:{PORTS[service]}{path}"


def database(name):
    return f"mysql+pymysql://{name}:{PASSWORD}@{ADDRESS}:{PORTS['mariadb']}/{name}?charset=utf8mb4"


TRANSPORT = f"rabbit://guest:guest@{ADDRESS}:{PORTS['rabbitmq']}/"
MEMCACHED = f"{ADDRESS}:{PORTS['memcached']}"


def write_all(layout, parameters):
    for write in (mariadb, rabbitmq, keystone, placement, glance, neutron, nova, cinder, masakari):
        write(layout, parameters)
    clouds_yaml(layout)


def make_folders(layout):
    """What services expect to find in the data directory."""
    for name in ("glance/images", "glance/staging", "glance/tasks", "keystone", "rabbitmq"):
        (layout.data / name).mkdir(parents=True, exist_ok=True)


def ini(path, **sections):
    """One file; a section's name is the keyword, `DEFAULT` among them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = []
    for section, options in sections.items():
        lines += [f"[{section}]", *[f"{key} = {value}" for key, value in options.items()], ""]
    path.write_text("\n".join(lines))


def paste(layout, service, name="api-paste.ini"):
    target = layout.etc / service / name
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(layout.venv / "etc" / service / name, target)
    return target


def user(service):
    """How a service says who it is, wherever it does."""
    return {
        "auth_type": "password",
        "auth_url": url("keystone", "/v3"),
        "username": service,
        "password": PASSWORD,
        "project_name": "service",
        "user_domain_id": "default",
        "project_domain_id": "default",
        "region_name": REGION,
    }


def authtoken(service):
    return {
        **user(service),
        "www_authenticate_uri": url("keystone", "/v3"),
        "memcached_servers": MEMCACHED,
        "service_token_roles": "service",
        "service_token_roles_required": "true",
    }


RABBIT = {"rabbit_quorum_queue": "false", "heartbeat_timeout_threshold": 20}
POOL = {"max_pool_size": 10, "max_overflow": 20}


def mariadb(layout, _):
    ini(
        layout.etc / "mariadb.cnf",
        mariadbd={
            "user": "root",
            "datadir": layout.data / "mariadb",
            "socket": "mariadb.sock",
            "pid_file": "mariadb.pid",
            "bind_address": ADDRESS,
            "port": PORTS["mariadb"],
            "skip_name_resolve": "on",
            "skip_networking": "off",
            "max_connections": 1000,
            "character_set_server": "utf8mb4",
            # Nothing here outlives the machine's power: a commit need not wait for the disk.
            "innodb_flush_log_at_trx_commit": 0,
            "innodb_doublewrite": 0,
            "innodb_log_file_size": "32M",
            "innodb_buffer_pool_size": "256M",
            "performance_schema": "off",
            "skip_log_bin": "",
            "init_file": layout.etc / "databases.sql",
        },
    )
    lines = []
    for name in ("keystone", "placement", "glance", "neutron", "nova_api", "nova_cell0", "nova", "cinder", "masakari"):
        lines += [
            f"CREATE DATABASE IF NOT EXISTS {name} CHARACTER SET utf8mb4;",
            f"CREATE USER IF NOT EXISTS {name}@'%' IDENTIFIED BY '{PASSWORD}';",
            f"GRANT ALL ON {name}.* TO {name}@'%';",
        ]
    (layout.etc / "databases.sql").write_text("\n".join(lines) + "\n")


def rabbitmq(layout, _):
    (layout.etc / "rabbitmq.conf").write_text(
        f"listeners.tcp.1 = {ADDRESS}:{PORTS['rabbitmq']}\n"
        "loopback_users = none\nlog.console = true\nlog.console.level = warning\n"
        "vm_memory_high_watermark.relative = 0.2\n"
    )
    (layout.etc / "rabbitmq-plugins").write_text("[].\n")


def keystone(layout, _):
    keys = layout.data / "keystone"
    ini(
        layout.etc / "keystone" / "keystone.conf",
        database={"connection": database("keystone"), **POOL},
        token={"provider": "fernet"},
        fernet_tokens={"key_repository": keys / "fernet"},
        # Without a place of its own `fernet_setup` writes receipt keys to /etc/keystone.
        fernet_receipts={"key_repository": keys / "receipts"},
        credential={"key_repository": keys / "credential"},
        cache={"enabled": "true", "backend": "dogpile.cache.memcached", "memcache_servers": MEMCACHED},
    )


def placement(layout, _):
    ini(
        layout.etc / "placement" / "placement.conf",
        placement_database={"connection": database("placement"), **POOL},
        keystone_authtoken=authtoken("placement"),
    )


def glance(layout, _):
    store = layout.data / "glance"
    paste(layout, "glance", "glance-api-paste.ini")
    ini(
        layout.etc / "glance" / "glance-api.conf",
        DEFAULT={"enabled_backends": "f:file", "bind_host": ADDRESS, "node_staging_uri": f"file://{store}/staging"},
        database={"connection": database("glance"), **POOL},
        glance_store={"default_backend": "f"},
        f={"filesystem_store_datadir": store / "images"},
        os_glance_staging_store={"filesystem_store_datadir": store / "staging"},
        os_glance_tasks_store={"filesystem_store_datadir": store / "tasks"},
        paste_deploy={"flavor": "keystone"},
        keystone_authtoken=authtoken("glance"),
    )


def neutron(layout, _):
    paste(layout, "neutron")
    ini(
        layout.etc / "neutron" / "neutron.conf",
        DEFAULT={
            "core_plugin": "ml2",
            "service_plugins": "",
            "transport_url": TRANSPORT,
            "rpc_workers": 0,
            "api_paste_config": layout.etc / "neutron" / "api-paste.ini",
            "state_path": layout.data / "neutron",
            "notify_nova_on_port_status_changes": "false",
            "notify_nova_on_port_data_changes": "false",
        },
        ml2={"mechanism_drivers": "logger", "type_drivers": "local,vlan", "tenant_network_types": "local"},
        database={"connection": database("neutron"), **POOL},
        keystone_authtoken=authtoken("neutron"),
        oslo_messaging_rabbit=RABBIT,
        oslo_concurrency={"lock_path": layout.data / "neutron" / "locks"},
    )


def nova(layout, parameters):
    """nova.conf for the control plane; compute.conf, the same without databases, for the hosts."""
    paste(layout, "nova")
    databases = {
        "api_database": {"connection": database("nova_api"), **POOL},
        "database": {"connection": database("nova"), **POOL},
    }
    for name, own in (("nova.conf", databases), ("compute.conf", {})):
        ini(
            layout.etc / "nova" / name,
            **own,
            DEFAULT={
                "transport_url": TRANSPORT,
                "my_ip": ADDRESS,
                "state_path": layout.data / "nova",
                "compute_driver": "minicloud.ProcessDriver",
                "report_interval": parameters["report_interval_s"],
                "service_down_time": parameters["service_down_time_s"],
                "resume_guests_state_on_host_boot": "false",
                "osapi_compute_workers": 1,
                "periodic_fuzzy_delay": 0,
                "vif_plugging_is_fatal": "false",
                "vif_plugging_timeout": 0,
            },
            wsgi={"api_paste_config": layout.etc / "nova" / "api-paste.ini"},
            keystone_authtoken=authtoken("nova"),
            service_user={**user("nova"), "send_service_user_token": "true"},
            placement=user("placement"),
            neutron=user("neutron"),
            cinder={**user("cinder"), "os_region_name": REGION},
            glance={"api_servers": url("glance")},
            quota={"instances": -1, "cores": -1, "ram": -1, "server_groups": -1, "server_group_members": -1},
            conductor={"workers": 1},
            # New hosts find their way into the cell by themselves: no nova-manage, four seconds less.
            scheduler={"workers": 1, "discover_hosts_in_cells_interval": 2},
            oslo_messaging_rabbit=RABBIT,
            oslo_concurrency={"lock_path": layout.data / "nova" / "locks"},
        )


def nova_compute(host):
    """What one host's nova-compute has of its own."""
    ini(
        host.layout.etc / "nova" / f"{host.name}.conf",
        DEFAULT={
            "host": host.name,
            "my_ip": host.addresses["mgmt"],
            "my_block_storage_ip": host.addresses["storage"],
            "state_path": host.dir / "nova",
        },
        oslo_concurrency={"lock_path": host.dir / "nova" / "locks"},
    )
    (host.dir / "nova").mkdir(parents=True, exist_ok=True)


def cinder(layout, _):
    paste(layout, "cinder")
    ini(
        layout.etc / "cinder" / "cinder.conf",
        DEFAULT={
            "transport_url": TRANSPORT,
            "my_ip": ADDRESS,
            "host": "control",
            "api_paste_config": layout.etc / "cinder" / "api-paste.ini",
            "state_path": layout.data / "cinder",
            "enabled_backends": "fake1",
            "default_volume_type": "fake",
            "auth_strategy": "keystone",
            "glance_api_servers": url("glance"),
            "quota_volumes": -1,
            "quota_gigabytes": -1,
            "quota_snapshots": -1,
        },
        fake1={"volume_driver": "cinder.tests.fake_driver.FakeLoggingVolumeDriver", "volume_backend_name": "fake1"},
        database={"connection": database("cinder"), **POOL},
        keystone_authtoken=authtoken("cinder"),
        service_user={**user("cinder"), "send_service_user_token": "true"},
        nova=user("nova"),
        oslo_messaging_rabbit=RABBIT,
        oslo_concurrency={"lock_path": layout.data / "cinder" / "locks"},
    )


def masakari(layout, _):
    api_paste = paste(layout, "masakari")
    ini(
        layout.etc / "masakari" / "masakari.conf",
        DEFAULT={
            "transport_url": TRANSPORT,
            "my_ip": ADDRESS,
            "os_privileged_user_name": "nova",
            "os_privileged_user_password": PASSWORD,
            "os_privileged_user_tenant": "service",
            "os_privileged_user_auth_url": url("keystone"),
            "os_region_name": REGION,
            "os_user_domain_name": "Default",
            "os_project_domain_name": "Default",
            "state_path": layout.data / "masakari",
        },
        database={"connection": database("masakari"), **POOL},
        taskflow={"connection": database("masakari")},
        wsgi={"api_paste_config": api_paste},
        keystone_authtoken=authtoken("masakari"),
        oslo_messaging_rabbit=RABBIT,
    )


def clouds_yaml(layout):
    """Two users: `minicloud` is the operator, `minicloud-demo` a tenant. JSON is YAML that the library can write."""

    def cloud(name, project):
        return {
            "auth": {
                "auth_url": url("keystone", "/v3"),
                "username": name,
                "password": PASSWORD,
                "project_name": project,
                "user_domain_name": "Default",
                "project_domain_name": "Default",
            },
            "region_name": REGION,
            "interface": "public",
            "identity_api_version": "3",
        }

    replace(
        layout.clouds_yaml,
        json.dumps(
            {"clouds": {"minicloud": cloud("admin", "admin"), "minicloud-demo": cloud("demo", "demo")}}, indent=2
        )
        + "\n",
    )
