"""os-brick, as nova-compute uses it, in this process.

usage: brick.py connect|disconnect PROPERTIES    (JSON: connection_info["data"] of Cinder's iSCSI drivers)
"""

import json
import sys

from os_brick import privileged
from os_brick.initiator import connector
from oslo_concurrency import lockutils

privileged.default.set_client_mode(False)
lockutils.set_defaults("/run/lock")


def main() -> None:
    todo, properties = sys.argv[1], json.loads(sys.argv[2])
    brick = connector.InitiatorConnector.factory("ISCSI", None, use_multipath=True, device_scan_attempts=5)
    if todo == "connect":
        print(json.dumps(brick.connect_volume(properties)))
    else:
        brick.disconnect_volume(properties, None)


main()
