#!/bin/sh
# Keep a worker for each core, or as many as NUMPROC says, with supervisord.
set -eu
NUMPROC=${NUMPROC:-$(nproc)}
EVO_SUPERVISOR=$(mktemp -d)
export NUMPROC EVO_SUPERVISOR
exec supervisord --configuration "$(dirname "$0")/supervisord.conf"
