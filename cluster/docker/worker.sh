#!/bin/sh
# Be a machine of workers, as many as NUMPROC says, else one for each core.
set -eu
exec python es/worker.py workers --num_workers="${NUMPROC:-$(nproc)}" "$@"
