"""Who may ask what: the policy, credentials, limits. Decisions are pure; they know no frontend, and `policy_file` alone
reads files."""
