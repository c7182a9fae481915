"""The audit log: a record of every call, in a signed Merkle tree, durable before the answer leaves (docs/audit-format.md).

``record.py`` what is written · ``tree.py`` and ``checkpoint.py`` what makes it provable · ``segment.py`` bytes on disk ·
``journal.py`` the one writer · ``verify.py`` the auditor's reader.
"""
