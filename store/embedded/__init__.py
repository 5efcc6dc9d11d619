"""A MongoDB for one machine: its wire protocol over one SQLite file.

| layer | module |
|---|---|
| finding and starting | `start`, `note` |
| connections | `service`, `mongo_wire`, `login` |
| commands | `commands`, `read_commands`, `write_commands`, `admin_commands`, `cursors` |
| what they mean | `queries`, `updates`, `projections`, `aggregation`, `expressions` |
| storage | `database`, `documents`, `bson_keys` |

The process itself is `store/server.py`.
"""
