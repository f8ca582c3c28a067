"""The peer of bench-client: openstacksdk lists the same instances from the same fake.

usage: openstacksdk.py AUTH_URL PASSWORD HOST; for each line on standard input it lists once and prints the number of
instances and the milliseconds of CPU that it took.
"""

import sys
import time

import openstack

auth_url, password, host = sys.argv[1:]
cloud = openstack.connection.Connection(
    auth_type="v3password",
    auth={
        "auth_url": auth_url,
        "username": "admin",
        "password": password,
        "project_name": "admin",
        "user_domain_id": "default",
        "project_domain_id": "default",
    },
    compute_api_version="2",
)
for _ in sys.stdin:
    before = time.process_time()
    count = sum(1 for _ in cloud.compute.servers(details=True, all_projects=True, compute_host=host))
    print(count, (time.process_time() - before) * 1000, flush=True)
