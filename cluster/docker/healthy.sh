#!/bin/sh
# Succeeds if the head's server answers, to a head or, by the password of workers, to them.
exec python -c '
from cluster.addresses import find_url
from cluster.redis_server import connect
from cluster.server_config import WORKER_USER

url = find_url(None, WORKER_USER)
if url is None:
    raise SystemExit("no server: EVO_REDIS is not set")
connect(url).close()
'
