"""One read: the accounts, their partitions, the state, and the messages for Airbyte."""
