"""Check that a live Truto API behaves as the connector assumes: `bash scripts/check_live.sh`.

`checks/` has one function for each fact. The tests run the same functions against the sandbox, and
against sandboxes of which each differs in one fact.
"""
