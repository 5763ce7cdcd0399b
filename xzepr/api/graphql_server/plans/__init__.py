"""Execution of GraphQL operations by compiled plans, and with graphql-core where a plan does not suffice."""
