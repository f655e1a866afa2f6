"""Check whether a live Truto API is what the connector relies on: `bash scripts/check_live.sh`.

`checks/` has one function for each fact. The tests run the same functions against the sandbox, and
against sandboxes that each differ in one fact.
"""
